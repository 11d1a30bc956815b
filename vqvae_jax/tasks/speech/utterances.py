"""The interface of speech sources, batches of utterances, and windows of their codes.

An utterance is an example with

- "audio": int16 [t], one channel at the data set's rate; divided by 32768 it is in
  [-1, 1);
- "speaker": int32 [], an index into the data set's `speaker_names`, or `UNKNOWN` for a
  speaker who is not in train;
- "sentence": int32 [], equal for utterances of the same words, or `UNKNOWN` if the
  words are unknown;
- "phones": int32 [p, 3], ordered rows of (start sample, end sample, index in the data
  set's `phone_names`); p is 0 if the phones are unknown.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int, Int64

from vqvae_jax.data.batches import check_sizes, once
from vqvae_jax.data.codes import CodesSource
from vqvae_jax.data.source import (
    Batch,
    Example,
    Source,
    Subset,
    read_columns,
    read_many,
    stack,
)
from vqvae_jax.runtime.errors import require
from vqvae_jax.tasks.speech import phones

UNKNOWN = -1


@runtime_checkable
class Utterances(Source, Protocol):
    """A source of utterances with known lengths."""

    @property
    def lengths(self) -> Int64[np.ndarray, " n"]:
        """The number of samples of each utterance."""
        ...


class SpeechSplits(NamedTuple):
    """The splits of a data set and the names of its labels.

    sources: a subset of "train", "validation" and "test".
    speaker_names: the speakers of train.
    phone_names: empty if the phones are unknown.
    """

    sources: dict[str, Utterances]
    speaker_names: tuple[str, ...]
    phone_names: tuple[str, ...]


class UtteranceSubset(Subset):
    """The utterances of `source` at `indices` [n], in that order."""

    def __init__(self, source: Utterances, indices: Int[np.ndarray, " n"]):
        super().__init__(source, indices)
        self._utterances = source

    @property
    def lengths(self) -> Int64[np.ndarray, " n"]:
        """The number of samples of each utterance."""
        return self._utterances.lengths[self._indices]


@dataclasses.dataclass(frozen=True)
class Crop:
    """Crop `samples` consecutive samples at a random position of an utterance.

    Shorter utterances are padded with silence. The example has "audio" int16
    [samples], "mask" bool [samples], which is False after the end of the utterance,
    and "speaker" and "sentence". Use as `TrainBatches(..., augment=Crop(samples))`.
    """

    samples: int

    def __call__(self, utterance: Example, number: int) -> Example:
        """Return the crop determined by a number in [0, 2**64)."""
        num_starts = max(0, len(utterance["audio"]) - self.samples) + 1
        # Scale the number to the range; a remainder would favour early starts.
        start = number * num_starts >> 64
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
    """Iterate once over whole utterances, from the shortest to the longest.

    Utterances of similar length share a batch, padded to T, the smallest multiple of
    `multiple_of` that fits the longest: this keeps the padding small, and also the
    number of shapes if `multiple_of` is large. All processes yield the same number of
    batches with the same shapes. With b = batch_size / process_count, a batch has

    - "audio" int16 [b, T] and "mask" bool [b, T], False after the end of an utterance
      and in the padding rows of the last batch;
    - "speaker" and "sentence" int32 [b];
    - "index" int32 [b]: the index of the example in the source, `UNKNOWN` in padding
      rows;
    - "phones" int32 [b, T / frame], the phone at the middle of each frame or -1, if
      `frame` is given.

    Args:
        source: the utterances.
        batch_size: global batch size, over all processes.
        multiple_of: T is a multiple of this number of samples.
        frame: samples per frame of "phones"; divides `multiple_of`.
        process_index: index of this process.
        process_count: number of processes; divides `batch_size`.

    Raises:
        UserError: if the sizes are inconsistent.
    """
    check_sizes(batch_size, process_index, process_count)
    require(multiple_of >= 1, f"multiple_of is {multiple_of}; expected at least 1")
    require(
        frame is None or (frame >= 1 and multiple_of % frame == 0),
        f"multiple_of {multiple_of} is not a multiple of frame {frame}",
    )
    lengths = source.lengths
    order = np.argsort(lengths, kind="stable")
    size = batch_size // process_count

    def read(step: int) -> Batch:
        global_batch = order[step * batch_size : (step + 1) * batch_size]
        samples = -(-int(lengths[global_batch[-1]]) // multiple_of) * multiple_of
        indices = global_batch[process_index * size :][:size].tolist()
        rows = [
            _row(utterance, index, samples, frame)
            for utterance, index in zip(
                read_many(source, indices), indices, strict=True
            )
        ]
        rows += [_row(_empty(), UNKNOWN, samples, frame)] * (size - len(rows))
        return stack(rows)

    return once(read, steps=-(-len(source) // batch_size))


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
    padded = np.zeros(samples, np.int16)
    padded[: len(kept)] = kept
    return {"audio": padded, "mask": np.arange(samples) < len(kept)}


def _empty() -> Example:
    unknown = np.asarray(UNKNOWN, np.int32)
    return {
        "audio": np.zeros(0, np.int16),
        "speaker": unknown,
        "sentence": unknown,
        "phones": phones.none(),
    }


class WindowsSource:
    """Windows of N codes: `{"codes": [N], "mask": [N], "speaker": []}`.

    A window never spans two utterances. After the end of an utterance "mask" is False
    and the codes are zero.

    Args:
        codes: codes of utterances, `[longest, 1]`, with the columns length and speaker.
        length: N.
        stride: codes between the starts of two windows of an utterance. If it equals
            `length`, each code is in exactly one window. If it is smaller, all windows
            are full, except that an utterance shorter than N gives one padded window.

    Raises:
        UserError: if the codes are not codes of utterances, or a size is invalid.
    """

    def __init__(self, codes: CodesSource, *, length: int, stride: int = 1):
        require(length >= 1, f"length must be at least 1, got {length}")
        require(
            1 <= stride <= length, f"stride must be in 1 ... {length}, got {stride}"
        )
        missing = {"length", "speaker"} - set(codes.metadata.columns)
        require(
            not missing,
            f"the codes have no column {' and no column '.join(sorted(missing))}; "
            "windows need codes of utterances",
        )
        self._codes, self._length = codes, length
        lengths = read_columns(codes, "length")["length"].tolist()
        self._starts: Int[np.ndarray, "n 2"] = np.concatenate(
            [
                _starts(utterance, count, length, stride)
                for utterance, count in enumerate(lengths)
            ]
        )

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: int) -> Example:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Example]:
        starts = self._starts[list(indices)]
        utterances = read_many(self._codes, starts[:, 0].tolist())
        return [
            self._window(utterance, int(start))
            for utterance, start in zip(utterances, starts[:, 1], strict=True)
        ]

    def _window(self, utterance: Example, start: int) -> Example:
        window = utterance["codes"][start : start + self._length, 0]
        codes = np.zeros(self._length, np.int32)
        codes[: len(window)] = window
        mask = start + np.arange(self._length) < utterance["length"]
        return {
            "codes": np.where(mask, codes, 0),
            "mask": mask,
            "speaker": utterance["speaker"],
        }


def _starts(
    utterance: int, count: int, length: int, stride: int
) -> Int[np.ndarray, "n 2"]:
    """Return (utterance, start) of each window of an utterance of `count` codes."""
    last = count - 1 if stride == length else max(0, count - length)
    starts = np.arange(0, last + 1, stride, dtype=np.int32)
    return np.stack([np.full_like(starts, utterance), starts], axis=1)
