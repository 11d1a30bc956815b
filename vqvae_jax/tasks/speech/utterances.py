"""What every source of speech offers, and how utterances of all lengths share a batch.

An utterance is the example

- "audio": int16 [t], one channel at the set's rate; / 32768 it is in [-1, 1);
- "speaker": int32 [], an index of the set's `speaker_names`, `UNKNOWN` for a speaker
  that train has not;
- "sentence": int32 [], the same number where the same words are spoken, `UNKNOWN` where
  the words are not known;
- "phones": int32 [p, 3], (first sample, first sample after, index in the set's
  `phone_names`), in order; p is 0 where they are not known.
"""

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int, Int64

from vqvae_jax.data.batches import check_sizes, once
from vqvae_jax.data.source import (
    Batch,
    Example,
    Source,
    Subset,
    read_many,
    stack,
)
from vqvae_jax.runtime.errors import require
from vqvae_jax.tasks.speech import phones

UNKNOWN = -1


@runtime_checkable
class Utterances(Source, Protocol):
    """A source of utterances, which knows how long they are."""

    @property
    def lengths(self) -> Int64[np.ndarray, " n"]:
        """The number of samples of each utterance."""
        ...


class SpeechSplits(NamedTuple):
    """The splits that a set brings, and what its labels mean.

    sources: some of "train", "validation" and "test".
    speaker_names: those of train.
    phone_names: empty if no phones are known.
    """

    sources: dict[str, Utterances]
    speaker_names: tuple[str, ...]
    phone_names: tuple[str, ...]


class UtteranceSubset(Subset):
    """The utterances of `source` at `indices` [n], in that order."""

    def __init__(self, source: Utterances, indices: Int[np.ndarray, " n"]):
        super().__init__(source, indices)
        self._whole = source

    @property
    def lengths(self) -> Int64[np.ndarray, " n"]:
        """The number of samples of each utterance."""
        return self._whole.lengths[self._indices]


@dataclasses.dataclass(frozen=True)
class Crop:
    """Make training examples: `samples` of an utterance, from anywhere within it.

    One that is shorter is followed by silence. The example has "audio" int16
    [samples], "mask" bool [samples], which is False where the utterance has ended, and
    "speaker" and "sentence". For `train_batches(..., augment=Crop(samples))`.
    """

    samples: int

    def __call__(self, utterance: Example, number: int) -> Example:
        """Return the crop that a number in [0, 2**64) decides."""
        places = max(0, len(utterance["audio"]) - self.samples) + 1
        # The number as a fraction of its range; a remainder would favour the beginning.
        start = number * places >> 64
        return {
            **_padded(utterance["audio"][start:], self.samples),
            "speaker": utterance["speaker"],
            "sentence": utterance["sentence"],
        }


def utterance_batches(
    source: Utterances,
    *,
    batch_size: int,
    multiple_of: int,
    frame: int | None = None,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[Batch]:
    """Iterate over whole utterances once, the shortest first, each in one batch.

    Utterances of similar length share a batch, padded to the least multiple of
    `multiple_of` that holds the longest: padding stays small, and so does the number of
    shapes if the multiple is large. Every process yields as many batches of the same
    shapes. With b = batch_size / process_count and T that multiple, a batch has

    - "audio" int16 [b, T] and "mask" bool [b, T], False where an utterance has ended
      and in rows that the last batch has too many;
    - "speaker" and "sentence" int32 [b];
    - "index" int32 [b]: which example of the source it is, `UNKNOWN` for a row too
      many;
    - "phones" int32 [b, T / frame], the phone at the middle of each frame or -1, if
      `frame` is given.

    Args:
        source: of utterances.
        batch_size: the global one, over all processes.
        multiple_of: samples; what T is a multiple of.
        frame: samples of a frame of phones; divides `multiple_of`.
        process_index: which process this is.
        process_count: how many there are; divides `batch_size`.

    Raises:
        UserError: the sizes do not fit.
    """
    check_sizes(batch_size, process_index, process_count)
    require(multiple_of >= 1, f"multiple_of is {multiple_of}; expected at least 1")
    require(
        frame is None or (frame >= 1 and multiple_of % frame == 0),
        f"multiple_of {multiple_of} is no multiple of the frame {frame}",
    )
    return _utterance_batches(
        source, batch_size, multiple_of, frame, process_index, process_count
    )


def _utterance_batches(
    source: Utterances,
    batch_size: int,
    multiple_of: int,
    frame: int | None,
    process_index: int,
    process_count: int,
) -> Iterator[Batch]:
    lengths = source.lengths
    order = np.argsort(lengths, kind="stable")
    size = batch_size // process_count

    def read(step: int) -> Batch:
        everywhere = order[step * batch_size : (step + 1) * batch_size]
        samples = -(-int(lengths[everywhere[-1]]) // multiple_of) * multiple_of
        here = everywhere[process_index * size :][:size].tolist()
        rows = [
            _row(utterance, index, samples, frame)
            for utterance, index in zip(read_many(source, here), here, strict=True)
        ]
        rows += [_row(_nobody(), UNKNOWN, samples, frame)] * (size - len(rows))
        return stack(rows)

    yield from once(read, steps=-(-len(source) // batch_size))


def _row(utterance: Example, index: int, samples: int, frame: int | None) -> Example:
    row = {
        **_padded(utterance["audio"], samples),
        "speaker": utterance["speaker"],
        "sentence": utterance["sentence"],
        "index": np.asarray(index, np.int32),
    }
    if frame is not None:
        row["phones"] = phones.on_frames(
            utterance["phones"], num_frames=samples // frame, frame=frame
        )
    return row


def _padded(audio: np.ndarray, samples: int) -> Example:
    kept = audio[:samples]
    whole = np.zeros(samples, np.int16)
    whole[: len(kept)] = kept
    return {"audio": whole, "mask": np.arange(samples) < len(kept)}


def _nobody() -> Example:
    unknown = np.asarray(UNKNOWN, np.int32)
    return {
        "audio": np.zeros(0, np.int16),
        "speaker": unknown,
        "sentence": unknown,
        "phones": phones.none(),
    }
