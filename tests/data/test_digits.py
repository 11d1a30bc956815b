"""The embedded digits: contents, splits, and preparation without TensorFlow."""

import os

import numpy as np
from launch_checks import python
from sklearn.datasets import load_digits

from vqvae_jax.data import digits, first_examples


def pairs(*sources):
    found = []
    for source in sources:
        batch = first_examples(source, len(source))
        found += zip(map(bytes, batch["image"]), batch["label"].tolist(), strict=True)
    return sorted(found)


def test_the_splits_together_are_the_digits_of_scikit_learn(tiny_dataset):
    bunch = load_digits()
    assert digits.to_uint8(np.array([0.0, 16.0])).tolist() == [0, 255]
    images = digits.to_uint8(bunch.images)
    np.testing.assert_array_equal(np.round(images * (16 / 255)), bunch.images)
    expected = sorted(zip(map(bytes, images), bunch.target.tolist(), strict=True))
    assert (
        pairs(tiny_dataset.train, tiny_dataset.validation, tiny_dataset.test)
        == expected
    )


def test_sizes_names_and_shapes(tiny_dataset):
    assert tiny_dataset.class_names == tuple("0123456789")
    assert tiny_dataset.image_shape == (8, 8, 1)
    assert len(tiny_dataset.test) == 355
    assert len(tiny_dataset.validation) == 144
    assert len(tiny_dataset.train) == 1298
    example = tiny_dataset.train[0]
    assert example["image"].shape == (8, 8, 1)
    assert example["image"].dtype == np.uint8
    assert example["label"].shape == ()
    assert example["label"].dtype == np.int32


def test_every_split_has_all_classes(tiny_dataset):
    for source in (tiny_dataset.train, tiny_dataset.validation, tiny_dataset.test):
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
    env = os.environ | {"TFDS_DATA_DIR": str(tmp_path)}
    result = python("-W", "error", "-c", script, env=env)
    assert result.returncode == 0, result.stderr
    assert result.stdout + result.stderr == ""
    assert (tmp_path / "digits" / "1.0.0" / "dataset_info.json").is_file()
