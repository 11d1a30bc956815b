"""The embedded digits: contents, splits, and preparation without TensorFlow."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from sklearn.datasets import load_digits

from vqvae_jax.data import (
    DataConfig,
    digits,
    first_examples,
    open_dataset,
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return open_dataset(
        DataConfig(
            source="tfds",
            name="digits",
            data_dir=str(tmp_path_factory.mktemp("tfds")),
            image_size=8,
            channels=1,
            validation_fraction=0.1,
        )
    )


def pairs(*sources):
    found = []
    for source in sources:
        batch = first_examples(source, len(source))
        found += zip(map(bytes, batch["image"]), batch["label"].tolist(), strict=True)
    return sorted(found)


def test_the_splits_together_are_the_digits_of_scikit_learn(dataset):
    bunch = load_digits()
    assert digits.to_uint8(np.array([0.0, 16.0])).tolist() == [0, 255]
    images = digits.to_uint8(bunch.images)
    np.testing.assert_array_equal(np.round(images * (16 / 255)), bunch.images)
    expected = sorted(zip(map(bytes, images), bunch.target.tolist(), strict=True))
    assert pairs(dataset.train, dataset.validation, dataset.test) == expected


def test_sizes_names_and_shapes(dataset):
    assert dataset.class_names == tuple("0123456789")
    assert dataset.image_shape == (8, 8, 1)
    assert len(dataset.test) == 355
    assert len(dataset.validation) == 144
    assert len(dataset.train) == 1298
    example = dataset.train[0]
    assert example["image"].shape == (8, 8, 1)
    assert example["image"].dtype == np.uint8
    assert example["label"].shape == ()
    assert example["label"].dtype == np.int32


def test_every_split_has_all_classes(dataset):
    for source in (dataset.train, dataset.validation, dataset.test):
        counts = np.bincount(first_examples(source, len(source))["label"])
        assert counts.min() > 0.5 * counts.max()


def test_preparation_needs_no_tensorflow_and_prints_nothing(tmp_path):
    # Prepare, open and read in TFDS_DATA_DIR; then open the prepared set, with a worker
    # process that is not closed.
    script = """
import sys
from vqvae_jax.data import DataConfig, eval_batches, open_dataset, TrainBatches
for workers in (0, 1):
    dataset = open_dataset(
        DataConfig(source="tfds", name="digits", image_size=8, channels=1)
    )
    batches = TrainBatches(dataset.train, batch_size=8, seed=0, num_workers=workers)
    next(batches)
    assert sum(b["mask"].sum() for b in eval_batches(dataset.test, batch_size=8)) == 355
assert "tensorflow" not in sys.modules
"""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        env={**os.environ, "TFDS_DATA_DIR": str(tmp_path)},
        cwd=pathlib.Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout + result.stderr == ""
    assert (tmp_path / "digits" / "1.0.0" / "dataset_info.json").is_file()
