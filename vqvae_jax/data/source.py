"""Random-access sources of examples, the interface between readers and batches."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int, Shaped

from vqvae_jax.runtime.errors import require

Example = dict[str, Shaped[np.ndarray, "..."]]
Batch = dict[str, Shaped[np.ndarray, "b ..."]]

# Integers of each frame of a world: its position, and the action that follows it.
FRAME_COLUMNS = ("action", "episode", "step")

_READ_AT_ONCE = 1024


@runtime_checkable
class Source(Protocol):
    """A pickleable collection of examples, read by index and from any thread.

    A source can also define `__getitems__(indices) -> list[Example]`, which reads
    many examples in one call.
    """

    def __len__(self) -> int:
        """Return the number of examples."""
        ...

    def __getitem__(self, index: int) -> Example:
        """Return example `index`: a dict of arrays without a batch dimension."""
        ...


class Splits(NamedTuple):
    """The splits of a set: a subset of "train", "validation" and "test"."""

    sources: dict[str, Source]
    class_names: tuple[str, ...]
    action_names: tuple[str, ...] = ()


class Subset:
    """The examples of `source` at `indices` [n], in that order."""

    def __init__(self, source: Source, indices: Int[np.ndarray, " n"]):
        self._source = source
        self._indices = indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Example:
        return self._source[int(self._indices[index])]

    def __getitems__(self, indices: Sequence[int]) -> list[Example]:
        return read_many(self._source, self._indices[list(indices)].tolist())


class Cached:
    """A source that caches the examples it has read in memory.

    Decoding a small image takes longer than a training step spends on it, so without
    a cache every epoch would wait for decoding. A pickled copy, as sent to worker
    processes, starts empty.
    """

    def __init__(self, source: Source):
        self._source = source
        self._allocate()

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Example:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Example]:
        missing = [i for i in indices if not self._is_cached[i]]
        if missing:
            for i, example in zip(
                missing, read_many(self._source, missing), strict=True
            ):
                for key, value in example.items():
                    self._arrays[key][i] = value
                # Set last, because other threads read the arrays once it is True.
                self._is_cached[i] = True
        return [{k: v[i] for k, v in self._views.items()} for i in indices]

    def __getstate__(self) -> dict[str, Source]:
        return {"_source": self._source}

    def __setstate__(self, state: dict[str, Source]) -> None:
        self.__dict__.update(state)
        self._allocate()

    def _allocate(self) -> None:
        n = len(self._source)
        self._is_cached = np.zeros(n, bool)
        self._arrays = {
            key: np.empty((n, *value.shape), value.dtype)
            for key, value in self._source[0].items()
        }
        # Read-only, because a change in place would change the cache.
        self._views = {key: array.view() for key, array in self._arrays.items()}
        for view in self._views.values():
            view.setflags(write=False)


def cached(source: Source, *, max_bytes: int = 256 * 2**20) -> Source:
    """Return `source` with a cache if all its examples fit in `max_bytes`."""
    if len(source) == 0:
        return source
    return Cached(source) if num_bytes(source) <= max_bytes else source


def num_bytes(source: Source) -> int:
    """Return the size of all examples, which have equal shapes; 0 for none."""
    if len(source) == 0:
        return 0
    return len(source) * sum(value.nbytes for value in source[0].values())


def permutation(n: int, *seed: int) -> Int[np.ndarray, " n"]:
    """Return the numbers 0 to n - 1 in an order determined by `n` and `seed`.

    Splits and the order of resumed runs must not change between versions of NumPy,
    which guarantees stability only for the raw bits of a named generator.
    """
    return np.argsort(np.random.PCG64(seed).random_raw(n), kind="stable")


def read_many(source: Source, indices: Sequence[int]) -> list[Example]:
    """Return the examples at `indices`, in one call if the source supports it."""
    getitems = getattr(source, "__getitems__", None)
    if getitems is None:
        return [source[index] for index in indices]
    return getitems(indices)


def read_columns(source: Source, *names: str) -> dict[str, Int[np.ndarray, " n"]]:
    """Return the named integers of all examples, in order.

    Examples, which can have other large arrays, are read a few at a time.
    """
    columns = {name: np.zeros(len(source), int) for name in names}
    for start in range(0, len(source), _READ_AT_ONCE):
        indices = range(start, min(start + _READ_AT_ONCE, len(source)))
        for index, example in zip(indices, read_many(source, indices), strict=True):
            for name in names:
                columns[name][index] = example[name]
    return columns


def read_whole(source: Source) -> Batch:
    """Return all examples, stacked, read a few at a time."""
    first = source[0]
    whole = {k: np.empty((len(source), *v.shape), v.dtype) for k, v in first.items()}
    for start in range(0, len(source), _READ_AT_ONCE):
        indices = range(start, min(start + _READ_AT_ONCE, len(source)))
        for key, values in stack(read_many(source, indices)).items():
            whole[key][start : start + len(indices)] = values
    return whole


def stack(examples: Sequence[Example]) -> Batch:
    """Stack examples of equal keys and shapes along a new first dimension."""
    return {key: np.stack([e[key] for e in examples]) for key in examples[0]}


def evenly_spaced(count: int, n: int) -> list[int]:
    """Return min(n, count) evenly spaced numbers from 0 to count - 1."""
    return np.linspace(0, count - 1, min(n, count)).round().astype(int).tolist()


def first_examples(source: Source, n: int) -> Batch:
    """Stack the first `n` examples of `source`, or all if there are fewer.

    Raises:
        UserError: the source is empty.
    """
    require(len(source) > 0, "cannot take the first examples of an empty split")
    return stack(read_many(source, range(min(n, len(source)))))
