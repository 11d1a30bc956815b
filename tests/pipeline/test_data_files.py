"""A run belongs to the files of one folder, wherever the folder is."""

import copy
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from vqvae_jax import pipeline
from vqvae_jax.data.config import DataConfig
from vqvae_jax.pipeline import data_files
from vqvae_jax.runtime.errors import UserError
from vqvae_jax.workdir import Workdir


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two classes of ten images of noise, and a validation split of one of them."""
    folder, rng = tmp_path_factory.mktemp("photos") / "a", np.random.default_rng(0)
    for path, count in (("train/cat", 10), ("train/dog", 10), ("val/dog", 3)):
        (folder / path).mkdir(parents=True)
        for number in range(count):
            noise = rng.integers(256, size=(8, 8), dtype=np.uint8)
            Image.fromarray(noise).save(folder / path / f"{number}.png")
    return folder


@pytest.fixture
def copied(photos, tmp_path):
    """A copy of `photos`, which tests may change."""
    return shutil.copytree(photos, tmp_path / "copy")


def facts_of_images(folder):
    data = DataConfig(source="folder", data_dir=str(folder), image_size=8, channels=1)
    return data_files.facts_of(data)


def test_a_copy_in_another_directory_has_the_same_facts(photos, copied):
    facts = facts_of_images(photos)
    assert facts["class_names"] == ["cat", "dog"]
    counts = {role: split["files"] for role, split in facts["splits"].items()}
    assert counts == {"train": 20, "validation": 3}
    # Files that are not read do not count, nor does which name the split has.
    (copied / "train" / "cat" / "notes.txt").write_text("x")
    (copied / "train" / "cat" / ".hidden.png").write_text("x")
    (copied / "val").rename(copied / "validation")
    assert facts_of_images(copied) == facts


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda folder: (folder / "train" / "cat").rename(folder / "train" / "ape"),
            "the folders of train were cat, dog ..., now ape, dog ...",
        ),
        (
            lambda folder: (folder / "train" / "cat" / "3.png").unlink(),
            "train had 20 files, now 19",
        ),
        (lambda folder: shutil.rmtree(folder / "val"), "validation had 3 files, now 0"),
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
    ids=["class", "missing file", "missing split", "size", "label"],
)
def test_other_files_raise_in_one_line(photos, copied, tmp_path, change, message):
    workdir = Workdir(tmp_path)
    data_files.keep(workdir, facts_of_images(photos))
    data_files.require_same(workdir, facts_of_images(copied))
    change(copied)
    with pytest.raises(UserError, match="was started with other files than") as e:
        data_files.require_same(workdir, facts_of_images(copied))
    assert f"({message}): choose another --workdir" in str(e.value)
    assert "\n" not in str(e.value)
    # `keep` does not replace the facts of the first folder.
    data_files.keep(workdir, facts_of_images(copied))
    data_files.require_same(workdir, facts_of_images(photos))


def test_unlabelled_images_are_directly_in_train(photos, tmp_path):
    shutil.copytree(photos / "train" / "cat", tmp_path / "train")
    facts = facts_of_images(tmp_path)
    assert (facts["class_names"], facts["splits"]["train"]["files"]) == ([], 10)


def test_other_data_and_no_folder_have_no_facts(tmp_path):
    digits = DataConfig(source="tfds", name="digits", image_size=8, channels=1)
    assert data_files.facts_of(digits) is None
    for path in (tmp_path, tmp_path / "missing"):
        assert facts_of_images(path) is None
    data_files.require_same(Workdir(tmp_path), None)
    data_files.keep(Workdir(tmp_path), None)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"class_names": 3}'])
def test_damaged_facts_raise(photos, tmp_path, content):
    workdir = Workdir(tmp_path)
    workdir.data.write_text(content)
    with pytest.raises(UserError, match=r"data\.json is damaged"):
        data_files.require_same(workdir, facts_of_images(photos))


def config_of(tiny_config, folder):
    """Return a config of a few steps on a folder of images."""
    config = copy.deepcopy(tiny_config)
    config["data"] |= {"source": "folder", "data_dir": str(folder)}
    few = {"steps": 2, "log_every": 1, "checkpoint_every": 2, "batch_size": 8}
    config["training"] |= few
    return config


def test_a_run_resumes_only_with_its_files(
    tiny_config, photos, copied, tmp_path, capsys
):
    run = tmp_path / "run"
    pipeline.run(config_of(tiny_config, photos), str(run), ["vqvae"])
    kept = json.loads((run / "data.json").read_text())
    note = (
        "there is no test split: the validation split is the test split, and "
        "validation is cut from train"
    )
    assert kept == facts_of_images(photos) | {"note": note}
    assert note in capsys.readouterr().out
    moved = config_of(tiny_config, copied)
    pipeline.run(moved, str(run), ["vqvae"])
    assert "nothing to do" in capsys.readouterr().out

    # A run without recorded facts records them when it resumes.
    (run / "data.json").unlink()
    pipeline.run(moved, str(run), ["vqvae", "codes"])
    assert json.loads((run / "data.json").read_text()) == kept
    (copied / "train" / "cat" / "3.png").unlink()
    for chosen in (["vqvae"], ["vqvae", "codes", "prior"]):
        with pytest.raises(UserError, match="train had 20 files, now 19"):
            pipeline.run(moved, str(run), chosen)
    # A finished run does not need its data.
    shutil.rmtree(copied)
    pipeline.run(moved, str(run), ["vqvae", "codes"])


def test_classifying_a_single_class_raises(tiny_config, photos, tmp_path):
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
def test_options_that_need_labels_raise_before_training(
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
    assert not (tmp_path / "run").exists()
