"""Three splits from any splits of a set, tested on sets of numbers."""

import itertools

import numpy as np
import pytest

from vqvae_jax.data import (
    DataConfig,
    first_examples,
    folder,
    open_dataset,
)
from vqvae_jax.data.source import Splits
from vqvae_jax.runtime.errors import UserError

SIZES = {"train": 100, "validation": 20, "test": 30}
FIRST = {"train": 0, "validation": 1000, "test": 2000}


class Numbers:
    """Examples with labels `first`, `first` + 1, …, which no two splits share."""

    def __init__(self, first, size):
        self._labels = range(first, first + size)

    def __len__(self):
        return len(self._labels)

    def __getitem__(self, index):
        return {
            "image": np.zeros((2, 2, 1), np.uint8),
            "label": np.int32(self._labels[index])[...],
        }


@pytest.fixture
def labels(monkeypatch):
    """(*roles, fraction, **sizes) -> labels of the opened splits."""

    def opened(*roles, fraction=0.1, **sizes):
        sources = {r: Numbers(FIRST[r], (SIZES | sizes)[r]) for r in roles}
        monkeypatch.setattr(
            folder, "open_folder", lambda *_, **__: Splits(sources, ("a", "b"))
        )
        config = DataConfig(
            source="folder",
            data_dir="numbers",
            image_size=2,
            channels=1,
            validation_fraction=fraction,
        )
        dataset = open_dataset(config)
        assert dataset.class_names == ("a", "b")
        assert dataset.image_shape == (2, 2, 1)
        return {
            role: first_examples(source, len(source))["label"].tolist()
            for role, source in dataset._asdict().items()
            if role in SIZES
        }

    return opened


def numbers(role):
    return list(range(FIRST[role], FIRST[role] + SIZES[role]))


GIVEN = [
    ("train",),
    ("train", "test"),
    ("train", "validation"),
    ("train", "validation", "test"),
]


@pytest.mark.parametrize("roles", GIVEN, ids="+".join)
@pytest.mark.parametrize("fraction", [0.001, 0.1, 0.33])
def test_splits_are_disjoint_and_complete(labels, roles, fraction):
    """[22] Opening the set again gives the same splits."""
    splits = labels(*roles, fraction=fraction)
    assert all(splits.values())
    for one, other in itertools.combinations(splits.values(), 2):
        assert not set(one) & set(other)
    together = sorted(itertools.chain(*splits.values()))
    assert together == sorted(itertools.chain(*map(numbers, roles)))
    assert labels(*roles, fraction=fraction) == splits


def shuffled_train():
    """The order that determines the cut, from raw bits of a NumPy generator."""
    return np.argsort(np.random.PCG64((0,)).random_raw(100), kind="stable").tolist()


def test_validation_is_cut_from_train_and_test_is_unchanged(labels):
    """[22] Its examples are from all of train, because sets can be sorted by class."""
    splits = labels("train", "test", fraction=0.1)
    assert splits["test"] == numbers("test")
    assert splits["validation"] == sorted(shuffled_train()[:10])
    assert splits["train"] == sorted(shuffled_train()[10:])
    assert min(splits["validation"]) < 30
    assert max(splits["validation"]) > 70


def test_a_validation_split_becomes_test(labels):
    splits = labels("train", "validation", fraction=0.2)
    assert splits["test"] == numbers("validation")
    assert splits["validation"] == sorted(shuffled_train()[:20])


def test_train_alone_is_cut_twice(labels):
    splits = labels("train", fraction=0.1)
    assert splits["validation"] == sorted(shuffled_train()[:10])
    assert splits["test"] == sorted(shuffled_train()[10:20])
    assert len(splits["train"]) == 80


def test_three_given_splits_are_unchanged(labels):
    assert labels("train", "validation", "test") == {r: numbers(r) for r in SIZES}


@pytest.mark.parametrize(
    ("roles", "train", "fraction", "message"),
    [
        (("train",), 4, 0.49, "train has 4 examples, too few to cut 2 × 2"),
        (("train",), 2, 0.01, "train has 2 examples, too few to cut 2 × 1"),
        (("train", "test"), 1, 0.4, "train has 1 examples, too few to cut 1 × 1"),
    ],
)
def test_too_few_examples_to_cut_raise(labels, roles, train, fraction, message):
    with pytest.raises(UserError, match=f"^{message}"):
        labels(*roles, fraction=fraction, train=train)
