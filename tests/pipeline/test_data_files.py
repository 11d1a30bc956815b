"""A run is of one folder of data, wherever that lies."""

import copy
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from vqvae_jax import pipeline
from vqvae_jax.data import DataConfig, SpeechDataConfig
from vqvae_jax.pipeline import data_files
from vqvae_jax.runtime.errors import UserError
from vqvae_jax.workdir import Workdir


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two classes of ten images of noise, and a validation split of one of them."""
    folder, rng = tmp_path_factory.mktemp("photos") / "a", np.random.default_rng(0)
    for place, count in (("train/cat", 10), ("train/dog", 10), ("val/dog", 3)):
        (folder / place).mkdir(parents=True)
        for number in range(count):
            noise = rng.integers(256, size=(8, 8), dtype=np.uint8)
            Image.fromarray(noise).save(folder / place / f"{number}.png")
    return folder


@pytest.fixture
def copied(photos, tmp_path):
    """A copy of them, to change."""
    return shutil.copytree(photos, tmp_path / "copy")


def of_images(folder):
    data = DataConfig(source="folder", data_dir=str(folder), image_size=8, channels=1)
    return data_files.facts_of(data)


def of_speech(folder):
    data = SpeechDataConfig(source="folder", data_dir=str(folder), crop_samples=512)
    return data_files.facts_of(data)


def test_a_copy_elsewhere_is_the_same_folder(photos, copied):
    facts = of_images(photos)
    assert facts["class_names"] == ["cat", "dog"]
    counts = {role: split["files"] for role, split in facts["splits"].items()}
    assert counts == {"train": 20, "validation": 3}
    # What nobody reads may come and go, and either name of a split will do.
    (copied / "train" / "cat" / "notes.txt").write_text("x")
    (copied / "train" / "cat" / ".hidden.png").write_text("x")
    (copied / "val").rename(copied / "validation")
    assert of_images(copied) == facts


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lambda folder: (folder / "train" / "cat").rename(folder / "train" / "ape"),
            "the folders of train were cat, dog ..., now ape, dog ...",
        ),
        (
            lambda folder: (folder / "train" / "cat" / "3.png").unlink(),
            "train had 20 files, now 19",
        ),
        (
            lambda folder: shutil.rmtree(folder / "val"),
            "validation had 3 files, now 0",
        ),
        (
            lambda folder: (folder / "val" / "dog" / "0.png").write_bytes(b"other"),
            "names or sizes of the 3 files of validation are not the same",
        ),
        (
            lambda folder: (folder / "train" / "cat" / "3.png").rename(
                folder / "train" / "dog" / "33.png"
            ),
            "names or sizes of the 20 files of train are not the same",
        ),
    ],
    ids=["class", "a file less", "a split less", "size", "label"],
)
def test_other_files_are_refused_in_one_line(photos, copied, tmp_path, change, told):
    place = Workdir(tmp_path)
    data_files.keep(place, of_images(photos))
    data_files.require_same(place, of_images(copied))
    change(copied)
    with pytest.raises(UserError, match="was started with other files than") as e:
        data_files.require_same(place, of_images(copied))
    assert f"({told}): choose another --workdir" in str(e.value)
    assert "\n" not in str(e.value)
    # The first folder stays the one that counts.
    data_files.keep(place, of_images(copied))
    data_files.require_same(place, of_images(photos))


def test_unlabelled_images_lie_in_train_itself(photos, tmp_path):
    shutil.copytree(photos / "train" / "cat", tmp_path / "train")
    facts = of_images(tmp_path)
    assert (facts["class_names"], facts["splits"]["train"]["files"]) == ([], 10)


def test_recordings_and_their_phones_count(tmp_path):
    place = tmp_path / "train" / "ann"
    place.mkdir(parents=True)
    for name in ("0.wav", "0.tsv", "1.flac", "1.txt"):
        (place / name).write_text("x")
    facts = of_speech(tmp_path)
    assert (facts["class_names"], facts["splits"]["train"]["files"]) == (["ann"], 3)
    (place / "0.tsv").write_text("longer")
    assert of_speech(tmp_path) != facts


def test_other_data_and_no_folder_have_no_facts(tmp_path):
    digits = DataConfig(source="tfds", name="digits", image_size=8, channels=1)
    assert data_files.facts_of(digits) is None
    for path in (tmp_path, tmp_path / "nowhere"):
        assert of_images(path) is None
    data_files.require_same(Workdir(tmp_path), None)
    data_files.keep(Workdir(tmp_path), None)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"class_names": 3}'])
def test_damage_is_told(photos, tmp_path, content):
    place = Workdir(tmp_path)
    place.data.write_text(content)
    with pytest.raises(UserError, match=r"data\.json is damaged"):
        data_files.require_same(place, of_images(photos))


def config_of(tiny_config, folder):
    """A few steps on a folder of images."""
    config = copy.deepcopy(tiny_config)
    config["data"] |= {"source": "folder", "data_dir": str(folder)}
    few = {"steps": 2, "log_every": 1, "checkpoint_every": 2, "batch_size": 8}
    config["training"] |= few
    return config


def test_a_run_goes_on_with_its_files_alone(
    tiny_config, photos, copied, tmp_path, capsys
):
    run = tmp_path / "run"
    pipeline.run(config_of(tiny_config, photos), str(run), ["vqvae"])
    kept = json.loads((run / "data.json").read_text())
    assert kept == of_images(photos)
    moved = config_of(tiny_config, copied)
    pipeline.run(moved, str(run), ["vqvae"])
    assert "nothing to do" in capsys.readouterr().out

    # A run of before has kept nothing, and keeps it when it goes on.
    (run / "data.json").unlink()
    pipeline.run(moved, str(run), ["vqvae", "codes"])
    assert json.loads((run / "data.json").read_text()) == kept
    (copied / "train" / "cat" / "3.png").unlink()
    for chosen in (["vqvae"], ["vqvae", "codes", "prior"]):
        with pytest.raises(UserError, match="train had 20 files, now 19"):
            pipeline.run(moved, str(run), chosen)
    # Where nothing is left to do, it does not need its data.
    shutil.rmtree(copied)
    pipeline.run(moved, str(run), ["vqvae", "codes"])


def test_a_single_class_is_not_classified(tiny_config, photos, tmp_path):
    shutil.copytree(photos / "train" / "cat", tmp_path / "images" / "train" / "cat")
    config = config_of(tiny_config, tmp_path / "images")
    config["evaluation"]["classify_samples"] = True
    with pytest.raises(UserError, match=r"needs two classes, and the data has 1: set"):
        pipeline.run(config, str(tmp_path / "run"))


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"samples": {"guidance": 2.0}}, r"samples\.guidance=2\.0"),
        ({"evaluation": {"classify_samples": True}}, r"evaluation\.classify_samples=T"),
    ],
)
def test_what_needs_labels_is_refused_before_training(
    tiny_config, photos, tmp_path, changes, key
):
    shutil.copytree(photos / "train" / "cat", tmp_path / "images" / "train")
    config = config_of(tiny_config, tmp_path / "images")
    config["prior"]["label_dropout"] = 0.1
    config["evaluation"]["classify_samples"] = False
    for section, options in changes.items():
        config[section] |= options
    with pytest.raises(UserError, match=f"^{key}.* needs labels, and the data has"):
        pipeline.run(config, str(tmp_path / "run"))
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]
