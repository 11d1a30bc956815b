"""Batches of NumPy arrays from any source: endless and resumable, or one pass."""

import dataclasses
import functools
import os
import sys
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import grain
import jax.numpy as jnp
import numpy as np
from absl import flags
from jaxtyping import Bool, Int, Shaped, UInt64

from vqvae_jax.data.source import (
    Batch,
    Example,
    Source,
    permutation,
    read_many,
    read_whole,
    stack,
)
from vqvae_jax.runtime.arrays import AnyArray
from vqvae_jax.runtime.errors import UserError, require


class TrainBatches(Iterator[Batch]):
    """Batches of `source`, endlessly and in a new order each epoch; resumable.

    Batches cross epoch boundaries, so no example is dropped and a source can be smaller
    than a batch. Each batch stacks the arrays of its examples and adds
    "mask" bool [batch_size / process_count], all True, unless the examples have one.
    The examples of a global batch, their flips and their augmentation depend neither on
    the number of processes nor on the number of workers: the batches of a step,
    concatenated in process order, are the next `batch_size` examples of one global
    order.

    Args:
        source: examples as dicts of arrays, of equal shapes after augmentation.
        batch_size: size of the global batch, over all processes.
        seed: seed of order, flips and augmentation, in [0, 2**32).
        random_flip: flip the array "image" [H, W, C] left to right with probability
            1/2.
        augment: maps an example and a random number in [0, 2**64) to a training
            example; pickleable, because worker processes call it.
        process_index: index of this process.
        process_count: number of processes; divides `batch_size`.
        num_workers: number of processes that read and decode; 0 reads in threads.
        on_device: read all examples now, for the caller to put on its devices. Batches
            then have "index" int32 [b], and "flip" bool [b] with `random_flip`;
            `gather` makes the same batches of them.

    Attributes:
        whole: all examples, stacked, if `on_device`; otherwise {}.

    Raises:
        UserError: the source is empty or a size is invalid.
    """

    def __init__(
        self,
        source: Source,
        *,
        batch_size: int,
        seed: int,
        random_flip: bool = False,
        augment: Callable[[Example, int], Example] | None = None,
        process_index: int = 0,
        process_count: int = 1,
        num_workers: int = 0,
        on_device: bool = False,
    ):
        check_sizes(batch_size, process_index, process_count)
        require(len(source) > 0, "cannot train on an empty split")
        require(0 <= seed < 2**32, f"the seed is {seed}; expected 0 to 2**32 - 1")
        self._identity = {
            "batch_size": batch_size,
            "seed": seed,
            "num_examples": len(source),
        }
        self._num_workers = num_workers
        self._next_batch = 0
        self._running: list[grain.DatasetIterator] = []
        # At interpreter exit, Grain's clean-up runs too late and prints errors.
        weakref.finalize(self, _close_all, self._running)
        read = _ReadBatch(
            source,
            batch_size=batch_size,
            seed=seed,
            random_flip=random_flip,
            augment=augment,
            process_index=process_index,
            process_count=process_count,
        )
        self.whole: Batch = {}
        self._read: Callable[[int], Batch] = read
        if on_device:
            require(augment is None, "on_device=True allows no augmentation")
            self.whole = read_whole(source)
            # Indices are cheap, so worker processes would only delay them.
            self._read, self._num_workers = read.without_examples, 0

    def __next__(self) -> Batch:
        if not self._running:
            self._running.append(self._start())
        try:
            batch = next(self._running[0])
        except RuntimeError as error:
            if "Worker process was terminated" not in str(error):
                raise
            raise UserError(
                f"a data worker process was killed: {str(error).split('. ')[0]}. "
                "Perhaps memory ran out; rerun the same command with fewer "
                "data.num_workers to resume from the last checkpoint"
            ) from error
        self._next_batch += 1
        return batch

    def get_state(self) -> dict[str, int]:
        """Return the position as values that JSON can hold."""
        return {"next_batch": self._next_batch, **self._identity}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue exactly from the position at which `get_state` returned `state`.

        Raises:
            UserError: the state belongs to other data, seed or batch size.
        """
        for key, here in self._identity.items():
            require(
                state.get(key) == here,
                f"the data position was saved with {key}={state.get(key)}, and now "
                f"{key}={here}; resume with the same data and config",
            )
        self.close()
        self._next_batch = int(state["next_batch"])

    def close(self) -> None:
        """Stop the threads or processes that read ahead; they restart on use."""
        _close_all(self._running)

    @staticmethod
    def gather(
        batch: Mapping[str, Shaped[AnyArray, "..."]],
        whole: Mapping[str, Shaped[AnyArray, "..."]],
    ) -> dict[str, Shaped[AnyArray, "..."]]:
        """Return the batch that indices and all examples give.

        A batch without "index" is returned as it is. Works under jit.
        """
        if "index" not in batch:
            return dict(batch)
        examples = {name: array[batch["index"]] for name, array in whole.items()}
        if "flip" in batch and "image" in examples:
            image, flip = examples["image"], batch["flip"][:, None, None, None]
            examples["image"] = jnp.where(flip, image[:, :, ::-1], image)
        return {"mask": batch["mask"], **examples}

    def _start(self) -> grain.DatasetIterator:
        steps = grain.MapDataset.range(self._next_batch, sys.maxsize)
        batches = steps.map(self._read)
        if self._num_workers == 0:
            return iter(batches.to_iter_dataset(_threads()))
        ahead = grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)
        if not flags.FLAGS.is_parsed():
            # Grain reads absl flags here, which are not parsed in a notebook.
            flags.FLAGS.mark_as_parsed()
        workers = grain.MultiprocessingOptions(num_workers=self._num_workers)
        return iter(batches.to_iter_dataset(ahead).mp_prefetch(workers))


def eval_batches(
    source: Source,
    *,
    batch_size: int,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[Batch]:
    """Iterate over `source` once, in order, every example in exactly one batch.

    All processes yield the same number of batches of the same size. The batches of a
    step, concatenated in process order, are the next `batch_size` examples. The last
    one is padded with zeros where "mask", bool [batch_size / process_count], is False.

    Raises:
        UserError: a size is invalid.
    """
    check_sizes(batch_size, process_index, process_count)
    return _eval_batches(source, batch_size, process_index, process_count)


def _eval_batches(
    source: Source, batch_size: int, process_index: int, process_count: int
) -> Iterator[Batch]:
    size = batch_size // process_count

    def read(step: int) -> Batch:
        start = step * batch_size + process_index * size
        indices = range(min(start, len(source)), min(start + size, len(source)))
        examples = read_many(source, indices) if indices else []
        padding = size - len(examples)
        if padding:
            like = examples[0] if examples else source[0]
            examples += [{k: np.zeros_like(v) for k, v in like.items()}] * padding
        mask: Bool[np.ndarray, " b"] = np.arange(size) < len(indices)
        # Masks of examples, which mask their parts, take precedence; padding is False.
        return {"mask": mask, **stack(examples)}

    yield from once(read, steps=-(-len(source) // batch_size))


def once(read: Callable[[int], Batch], *, steps: int) -> Iterator[Batch]:
    """Yield `read(0)` to `read(steps - 1)` in order, reading ahead in threads."""
    if steps == 0:
        return
    iterator = iter(grain.MapDataset.range(steps).map(read).to_iter_dataset(_threads()))
    try:
        yield from iterator
    finally:
        iterator.close()


@dataclasses.dataclass(frozen=True)
class _ReadBatch:
    """Map the number of a step to this process's part of its batch.

    Positions in the endless order of examples are step * batch_size + row. All random
    numbers are functions of position and seed, so that the position is the only state.
    """

    source: Source
    _: dataclasses.KW_ONLY
    batch_size: int
    seed: int
    random_flip: bool
    augment: Callable[[Example, int], Example] | None
    process_index: int
    process_count: int

    def __call__(self, step: int) -> Batch:
        examples = read_many(self.source, self._indices(step))
        numbers = self._random_numbers(step)
        if self.augment is not None:
            examples = [
                self.augment(example, int(number))
                for example, number in zip(examples, numbers, strict=True)
            ]
        batch = stack(examples)
        if self.random_flip and "image" in batch:
            flip = _flips(numbers)
            batch["image"][flip] = batch["image"][flip][:, :, ::-1]
        return {"mask": np.ones(len(examples), bool), **batch}

    def without_examples(self, step: int) -> Batch:
        """Return what `gather` needs for the batch of a step."""
        index = np.array(self._indices(step), np.int32)
        batch = {"index": index, "mask": np.ones(len(index), bool)}
        if self.random_flip:
            batch["flip"] = _flips(self._random_numbers(step))
        return batch

    def _indices(self, step: int) -> list[int]:
        n = len(self.source)
        positions = step * self.batch_size + np.arange(self.batch_size)[self._rows]
        return [
            int(_order(n, self.seed, position // n)[position % n])
            for position in positions.tolist()
        ]

    def _random_numbers(self, step: int) -> UInt64[np.ndarray, " b"]:
        # One draw for the whole global batch, so that the augmentation of an example
        # does not depend on the process that reads it.
        bits = np.random.Philox(key=self.seed, counter=[0, 0, step, 0])
        numbers = bits.random_raw(self.batch_size)
        return numbers[self._rows]

    @property
    def _rows(self) -> slice:
        size = self.batch_size // self.process_count
        return slice(self.process_index * size, (self.process_index + 1) * size)


def _flips(numbers: UInt64[np.ndarray, " b"]) -> Bool[np.ndarray, " b"]:
    return numbers >> np.uint64(63) == 1


def _close_all(iterators: list[grain.DatasetIterator]) -> None:
    while iterators:
        iterators.pop().close()


# A batch can span two epochs, and two iterators can alternate.
@functools.lru_cache(maxsize=4)
def _order(n: int, seed: int, epoch: int) -> Int[np.ndarray, " n"]:
    return permutation(n, seed, epoch)


def _threads() -> grain.ReadOptions:
    # The unit is a batch: reading more batches ahead would only use memory.
    count = min(8, os.cpu_count() or 1)
    return grain.ReadOptions(num_threads=count, prefetch_buffer_size=count)


def check_sizes(batch_size: int, process_index: int, process_count: int) -> None:
    """Raise UserError unless the processes can split batches of this size evenly."""
    require(batch_size >= 1, f"batch_size is {batch_size}; expected at least 1")
    require(
        0 <= process_index < process_count,
        f"process_index is {process_index}; expected 0 to {process_count - 1}",
    )
    require(
        batch_size % process_count == 0,
        f"batch_size {batch_size} is not divisible by the {process_count} processes; "
        "choose a multiple",
    )
