"""Sources of examples: subsets, caches, columns and first examples."""

import pickle

import numpy as np
import pytest

from vqvae_jax.data import source as source_lib
from vqvae_jax.data.source import (
    Cached,
    Subset,
    cached,
    evenly_spaced,
    first_examples,
    read_columns,
    read_many,
)
from vqvae_jax.runtime.errors import UserError


class Counting:
    """A source of images with value i that counts the reads of each example."""

    def __init__(self, n):
        self.reads = np.zeros(n, int)

    def __len__(self):
        return len(self.reads)

    def __getitem__(self, index):
        self.reads[index] += 1
        return {"image": np.full((2, 2, 1), index, np.uint8)}


def values(examples):
    return [int(e["image"][0, 0, 0]) for e in examples]


def test_a_subset_reads_single_and_many_examples():
    subset = Subset(Counting(10), np.array([7, 2, 9]))
    assert len(subset) == 3
    assert values([subset[0], subset[2]]) == [7, 9]
    assert values(read_many(subset, [1, 0])) == [2, 7]


def test_a_cache_reads_each_example_once():
    source = Counting(10)
    cache = Cached(source)
    source.reads[:] = 0
    for _ in range(3):
        assert values(read_many(cache, [3, 1, 3])) == [3, 1, 3]
    assert source.reads.tolist() == [0, 1, 0, 2, 0, 0, 0, 0, 0, 0]
    assert len(cache) == 10


def test_cached_arrays_are_read_only():
    example = Cached(Counting(3))[1]
    with pytest.raises(ValueError, match="read-only"):
        example["image"][:] = 0


def test_a_pickled_cache_starts_empty():
    cache = Cached(Counting(200))
    read_many(cache, range(200))
    copy = pickle.loads(pickle.dumps(cache))
    assert values([copy[8]]) == [8]
    assert not copy._is_cached[:8].any()


def test_columns_are_read_a_few_examples_at_a_time(monkeypatch):
    monkeypatch.setattr(source_lib, "_READ_AT_ONCE", 4)
    reads = []

    class Rows:
        def __len__(self):
            return 10

        def __getitem__(self, index):
            return self.__getitems__([index])[0]

        def __getitems__(self, indices):
            reads.append(list(indices))
            zeros = np.zeros(1000, np.float32)
            return [
                {"a": np.array(3 * i), "b": np.array(-i), "x": zeros} for i in indices
            ]

    columns = read_columns(Rows(), "b", "a")
    assert reads == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert list(columns) == ["b", "a"]
    np.testing.assert_array_equal(columns["a"], 3 * np.arange(10))
    np.testing.assert_array_equal(columns["b"], -np.arange(10))


def test_only_sources_that_fit_are_cached():
    source = Counting(10)
    assert isinstance(cached(source, max_bytes=40), Cached)
    assert cached(source, max_bytes=39) is source
    empty = Counting(0)
    assert cached(empty) is empty


def test_first_examples():
    assert first_examples(Counting(5), 3)["image"].shape == (3, 2, 2, 1)
    assert len(first_examples(Counting(2), 3)["image"]) == 2
    with pytest.raises(UserError, match="empty"):
        first_examples(Counting(0), 3)


def test_evenly_spaced_numbers():
    assert evenly_spaced(9, 3) == [0, 4, 8]
    assert evenly_spaced(3, 9) == [0, 1, 2]
