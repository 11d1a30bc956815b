"""TFDS sets: names, preparation, damage, features, and CIFAR-10."""

import io
import json
import os
import pickle
import shutil
import socket

import numpy as np
import pytest
import tensorflow_datasets as tfds
from launch_checks import ROOT, python
from PIL import Image

from vqvae_jax import registry
from vqvae_jax.data import DataConfig, first_examples, open_dataset
from vqvae_jax.data.source import read_many
from vqvae_jax.data.tfds import open_tfds
from vqvae_jax.runtime.errors import UserError

TFDS = ROOT.parent / "shared" / "data" / "tfds"
needs_cifar10 = pytest.mark.skipif(
    not (TFDS / "cifar10").is_dir(), reason="CIFAR-10 is not here"
)


def open_at(path, name, **kwargs):
    return open_tfds(
        name, data_dir=str(path), **{"image_size": 8, "channels": 1} | kwargs
    )


def digits_at(path):
    open_at(path, "digits")
    return path / "digits" / "1.0.0"


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("cifar11", "no set of that name; did you mean cifar10"),
        ("digit", "did you mean digits"),
        ("Cifar 10", "data.name='Cifar 10'"),
        ("cifar10:9.9.9", r"only: 3\.0\.2"),
    ],
)
def test_an_unknown_name_raises_with_similar_names(tmp_path, name, match):
    with pytest.raises(UserError, match=match) as caught:
        open_at(tmp_path, name)
    assert "\n" not in str(caught.value)


def test_a_missing_module_of_an_embedded_set_raises(tmp_path, monkeypatch):
    """As if the folder of a set in `contrib` had been deleted."""
    monkeypatch.setitem(
        registry.EMBEDDED_SETS, "speech", "vqvae_jax.contrib.deleted.builder:Speech"
    )
    match = r"^data\.name='speech' needs the module vqvae_jax\.contrib\.deleted, "
    with pytest.raises(UserError, match=match) as caught:
        open_at(tmp_path, "speech")
    assert "\n" not in str(caught.value)


def test_without_network_the_error_has_alternatives(tmp_path, monkeypatch):
    def unknown(host, port):
        raise socket.gaierror("Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.setattr("urllib.request.getproxies", dict)
    with pytest.raises(UserError) as caught:
        open_at(tmp_path, "mnist")
    message = str(caught.value)
    for part in (
        "mnist/",
        str(tmp_path),
        "no network",
        "TFDS_DATA_DIR",
        "data.data_dir",
        "experiments/digits.py",
    ):
        assert part in message
    assert "\n" not in message


def test_a_set_in_another_format_raises(tmp_path):
    prepared = digits_at(tmp_path)
    info = json.loads((prepared / "dataset_info.json").read_text())
    info["fileFormat"] = "tfrecord"
    (prepared / "dataset_info.json").write_text(json.dumps(info))
    with pytest.raises(UserError, match="prepared as tfrecord"):
        open_at(tmp_path, "digits")


def test_a_damaged_set_raises(tmp_path):
    prepared = digits_at(tmp_path)
    next(prepared.glob("*train*")).write_bytes(b"damaged" * 20_000)
    with pytest.raises(UserError, match="cannot be read"):
        open_at(tmp_path, "digits")


def test_damage_found_on_access_raises_with_the_folder(tmp_path):
    """Opening reads only the first record; a byte of a later one is flipped."""
    prepared = digits_at(tmp_path)
    shard = next(prepared.glob("*train*"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 0xFF
    shard.write_bytes(content)
    train = open_at(tmp_path, "digits").sources["train"]
    with pytest.raises(UserError, match=r"digits/1\.0\.0.* cannot be read .*delete"):
        list(map(train.__getitem__, range(len(train))))
    with pytest.raises(UserError, match=r"digits/1\.0\.0.* cannot be read .*delete"):
        read_many(train, range(len(train)))


def test_a_folder_that_is_not_writable_raises(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be prepared there"):
        open_at(tmp_path / "file", "digits")


def test_features_are_found_by_type(tmp_path):
    class Oddly(tfds.core.GeneratorBasedBuilder):
        """No key is named image or label; the test split has no labels."""

        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            return self.dataset_info_from_configs(
                features=tfds.features.FeaturesDict(
                    {
                        "depth": tfds.features.Tensor(shape=(8, 8, 1), dtype=np.int64),
                        "mask": tfds.features.Tensor(shape=(8, 8, 1), dtype=np.uint8),
                        "photo": tfds.features.Image(),
                        "kind": tfds.features.ClassLabel(names=["a", "b"]),
                    }
                )
            )

        def _split_generators(self, dl_manager):
            return {
                "train": self._generate_examples(20, 1),
                "validation": self._generate_examples(5, 0),
                "test": self._generate_examples(5, -1),
            }

        def _generate_examples(self, n, label):
            photo = io.BytesIO()
            Image.new("RGB", (12, 8), (7, 8, 9)).save(photo, "PNG")
            for i in range(n):
                yield (
                    i,
                    {
                        "depth": np.zeros((8, 8, 1), np.int64),
                        "mask": np.zeros((8, 8, 1), np.uint8),
                        "photo": io.BytesIO(photo.getvalue()),
                        "kind": label,
                    },
                )

    class Soundless(Oddly):
        def _info(self):
            return self.dataset_info_from_configs(
                features=tfds.features.FeaturesDict({"x": np.int64})
            )

        def _generate_examples(self, n, label):
            yield 0, {"x": n}

    for builder in (Oddly, Soundless):
        builder(data_dir=tmp_path).download_and_prepare(file_format="array_record")
    splits = open_at(tmp_path, "oddly", channels=3)
    assert set(splits.sources) == {"train", "validation"}
    assert splits.class_names == ("a", "b")
    example = splits.sources["train"][0]
    assert example["label"] == 1
    assert (example["image"] == [7, 8, 9]).all()
    assert example["image"].shape == (8, 8, 3)
    with pytest.raises(UserError, match="no uint8 image feature, only x"):
        open_at(tmp_path, "soundless")


@pytest.fixture(scope="module")
def cifar10():
    return open_dataset(
        DataConfig(
            source="tfds", name="cifar10", data_dir=str(TFDS), image_size=32, channels=3
        )
    )


@needs_cifar10
def test_cifar10_shapes_and_names(cifar10):
    assert [len(s) for s in cifar10[:3]] == [47_500, 2_500, 10_000]
    assert cifar10.class_names[:3] == ("airplane", "automobile", "bird")
    assert cifar10.image_shape == (32, 32, 3)
    batch = first_examples(cifar10.test, 10)
    assert batch["image"].shape == (10, 32, 32, 3)
    assert batch["image"].dtype == np.uint8


@needs_cifar10
def test_cifar10_validation_is_cut_from_train_and_test_is_complete(cifar10):
    train, validation = cifar10.train._indices, cifar10.validation._indices
    assert sorted([*train, *validation]) == list(range(50_000))
    builder = tfds.builder("cifar10", data_dir=str(TFDS))
    expected = builder.as_data_source("test")
    for i in (0, 1, 4_999, 9_999):
        example = expected[i]
        np.testing.assert_array_equal(cifar10.test[i]["image"], example["image"])
        assert cifar10.test[i]["label"] == example["label"]
    counts = np.bincount(first_examples(cifar10.validation, 2_500)["label"])
    assert counts.min() > 200


@needs_cifar10
def test_a_pickled_source_reads_many_examples(cifar10):
    source = pickle.loads(pickle.dumps(cifar10.train))
    indices = [5, 40_000, 5, 0]
    for got, index in zip(read_many(source, indices), indices, strict=True):
        np.testing.assert_array_equal(got["image"], cifar10.train[index]["image"])


@needs_cifar10
def test_reading_imports_no_tensorflow_and_prints_nothing():
    script = f"""
import sys
from vqvae_jax.data import DataConfig, open_dataset, TrainBatches
dataset = open_dataset(
    DataConfig(
        source="tfds", name="cifar10", data_dir={str(TFDS)!r}, image_size=32, channels=3
    )
)
batches = TrainBatches(dataset.train, batch_size=64, seed=0, random_flip=True)
for _ in range(3):
    next(batches)
batches.close()
assert "tensorflow" not in sys.modules
"""
    result = python("-W", "error", "-c", script)
    assert result.returncode == 0, result.stderr
    assert result.stdout + result.stderr == ""


_PREPARE_IMAGES = """
import numpy as np
import tensorflow_datasets as tfds
from vqvae_jax.data.tfds import _prepare

class Tiny(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")
    pkg_dir_path = tfds.core.Path(".")

    def _info(self):
        features = {"image": tfds.features.Image(shape=(8, 8, 3))}
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features)
        )

    def _split_generators(self, dl_manager):
        image = np.zeros((8, 8, 3), np.uint8)
        return {"train": ((i, {"image": image}) for i in range(4))}

    def _generate_examples(self):
        raise NotImplementedError

_prepare(Tiny(data_dir="prepared"))
"""


@pytest.mark.slow
def test_preparation_with_tensorflow_prints_nothing(tmp_path):
    """Neither messages of TensorFlow on import nor a progress bar."""
    pytest.importorskip("tensorflow")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TF_")}
    environment["PYTHONPATH"] = str(ROOT)
    found = python("-c", _PREPARE_IMAGES, cwd=tmp_path, env=environment)
    assert found.returncode == 0, found.stderr
    assert found.stderr == ""
    assert list((tmp_path / "prepared" / "tiny").glob("*/*.array_record*"))


@pytest.fixture
def two_versions(tmp_path):
    """Digits in version 1.0.0, and an older version that was prepared as tfrecord."""
    prepared = digits_at(tmp_path)
    older = tmp_path / "digits" / "0.9.0"
    shutil.copytree(prepared, older)
    for shard in older.glob("*array_record*"):
        shard.rename(older / shard.name.replace("array_record", "tfrecord"))
    os.truncate(next(older.glob("*tfrecord*")), 2**27)
    return tmp_path


def test_large_files_of_another_version_are_accepted(two_versions):
    assert len(open_at(two_versions, "digits").sources["train"]) > 0


@pytest.mark.parametrize("name", ["digits", "digits:1.0.0"])
def test_a_fifo_or_a_huge_description_is_not_read(tmp_path, name):
    prepared = digits_at(tmp_path)
    os.truncate(prepared / "dataset_info.json", 2**27)
    with pytest.raises(UserError, match=r"dataset_info\.json has 134217728 bytes"):
        open_at(tmp_path, name)
    (prepared / "dataset_info.json").unlink()
    os.mkfifo(prepared / "dataset_info.json")
    with pytest.raises(UserError, match=r"dataset_info\.json is not a regular file"):
        open_at(tmp_path, name)


def test_without_a_name_the_folder_is_not_searched(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(UserError, match=r"data\.name=''"):
        open_at(tmp_path, "")
