"""Phones: read their tables, assign them to frames, and predict them from codes.

Section 4.3 classifies phonemes from codes that were learned without labels. Each code
is mapped to the phone it most often co-occurs with on train. The phones of held-out
utterances are then predicted from their codes, frame by frame, without context. In the
paper, 128 codes at 25 Hz predict 49.3 % of frames correctly out of 41 phones, where
always predicting the most frequent phone gives 7.2 %.

Recordings may be silent for a large part, which raises the accuracy and its chance
level. Both are therefore measured a second time without silence.
"""

import math
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Int32

from vqvae_jax.runtime.errors import UserError, require
from vqvae_jax.runtime.safe_io import read_bytes

# Seconds a phone may extend past the recording: aligners use frames of 10 ms.
_TOLERANCE = 0.02
# Seconds; tables round times to a few digits.
_ROUNDING = 1e-6
# Of a table; an hour of speech takes a megabyte.
_MAX_BYTES = 2**26

# Of the table next to a recording.
SUFFIX = ".tsv"

NO_PHONE = -1

# Names of silence and pauses, in lower case: of CMU's tools, HTK's and the Montreal
# aligner's short pause, TIMIT's and Festival's.
_SILENCES = ("sil", "sp", "h#", "pau")


class Table(NamedTuple):
    """The phones of one recording in order, as listed in its phone table.

    starts: `[P]` seconds.
    ends: `[P]` seconds; no phone ends after the next one starts.
    names: P phone names.
    """

    starts: Float[np.ndarray, " p"]
    ends: Float[np.ndarray, " p"]
    names: tuple[str, ...]

    def segments(
        self, phone_names: tuple[str, ...], *, rate: int, length: int
    ) -> Int32[np.ndarray, "p 3"]:
        """Return rows of (start sample, end sample, index in `phone_names`)."""
        times = np.stack([self.starts, self.ends], axis=1)
        samples = np.minimum(np.round(times * rate), length)
        ids = np.array([phone_names.index(name) for name in self.names])
        whole = np.concatenate([samples, ids.reshape(-1, 1)], axis=1).astype(np.int32)
        # Drop segments that round to zero length.
        return whole[whole[:, 0] < whole[:, 1]]


def none() -> Int32[np.ndarray, "0 3"]:
    """Return the empty segments of a recording without phone labels."""
    return np.zeros((0, 3), np.int32)


def silences(phone_names: tuple[str, ...]) -> tuple[int, ...]:
    """Return the indices of the phones that are silence, by their names."""
    return tuple(i for i, n in enumerate(phone_names) if n.lower() in _SILENCES)


def read_table(path: str, *, seconds: float) -> Table:
    """Read a TSV with columns start (s), end (s) and phone; ignore further columns.

    Args:
      path: path of the table.
      seconds: duration of the recording.

    Raises:
      UserError: if the table cannot be read, or a line has too few columns, times that
        are not numbers, or times that overlap, decrease or exceed the recording.
    """
    try:
        lines = read_bytes(Path(path), limit=_MAX_BYTES).decode().splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    rows: list[tuple[float, float, str]] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        start, end, name = _parse(line, where)
        before = rows[-1][1] if rows else 0.0
        require(
            start >= before - _ROUNDING,
            f"{where}: {name!r} starts at {start} s, before the previous phone ends at "
            f"{before} s",
        )
        require(
            start < end, f"{where}: {name!r} starts at {start} s but ends at {end} s"
        )
        require(
            end <= seconds + _TOLERANCE,
            f"{where}: {name!r} ends at {end} s, after the recording ends at "
            f"{seconds:.3f} s",
        )
        rows.append((start, end, name))
    require(bool(rows), f"{path} lists no phones; remove it if the phones are unknown")
    starts, ends, names = zip(*rows, strict=True)
    return Table(np.array(starts), np.array(ends), names)


def on_frames(
    segments: Int32[np.ndarray, "p 3"], *, num_frames: int, frame: int
) -> Int32[np.ndarray, " n"]:
    """Return the phone at the middle of each frame, or `NO_PHONE`.

    Args:
      segments: rows of (start sample, end sample, phone), in order.
      num_frames: number of frames.
      frame: samples per frame; frame k is [k * frame, (k + 1) * frame).
    """
    middles = np.arange(num_frames) * frame + frame // 2
    if len(segments) == 0:
        return np.full(num_frames, NO_PHONE, np.int32)
    starts, ends, ids = segments.T
    at = np.searchsorted(starts, middles, side="right") - 1
    is_inside = (at >= 0) & (middles < ends[at])
    return np.where(is_inside, ids[at], NO_PHONE).astype(np.int32)


def _parse(line: str, where: str) -> tuple[float, float, str]:
    columns = line.split("\t")
    try:
        start, end, name = float(columns[0]), float(columns[1]), columns[2].strip()
    except (ValueError, IndexError) as error:
        raise UserError(
            f"{where} is {line[:60]!r}; expected start (s), end (s) and phone, "
            "separated by tabs"
        ) from error
    require(
        math.isfinite(start) and math.isfinite(end) and name != "",
        f"{where} is {line[:60]!r}; expected two finite times and a phone name",
    )
    return start, end, name


class UnknownPhones(UserError):
    """No frame has a known phone."""


class Frames(NamedTuple):
    """The codes and phones of one utterance, one frame per code.

    codes: `[n]`.
    phones: `[n]`, the phone of each frame; frames with `NO_PHONE` are ignored.
    """

    codes: Int[np.ndarray, " n"]
    phones: Int[np.ndarray, " n"]


class Accuracy(NamedTuple):
    """The accuracy of phones predicted from codes, over test frames.

    accuracy: fraction of frames for which the code's phone is correct.
    chance: accuracy of always predicting the most frequent phone of train.
    frames: number of frames.
    """

    accuracy: float
    chance: float
    frames: int


class PhonemeScores(NamedTuple):
    """How well codes predict phones, on the test frames with a known phone.

    all: accuracy on all of these frames.
    spoken: accuracy on those that are not silence, with codes mapped to phones on the
      frames of train that are not silence either. None if there is no silence, or
      nothing else.
    shuffled: the accuracy of `all` with the codes of each utterance in random order,
      which keeps what is said but not when.
    confusion: `[P, P]` frame counts, by true phone and predicted phone.
    """

    all: Accuracy
    spoken: Accuracy | None
    shuffled: float
    confusion: Int[np.ndarray, "P P"]


def score(
    train: Iterable[Frames],
    test: Iterable[Frames],
    *,
    num_codes: int,
    num_phones: int,
    silence: Collection[int] = (),
    seed: int = 0,
) -> PhonemeScores:
    """Map codes to phones on train, and predict the phones of test with the map.

    Args:
      train: utterances to fit to.
      test: held-out utterances.
      num_codes: K; codes are in [0, K).
      num_phones: P; phones are in [0, P).
      silence: the phones that are silence.
      seed: seed for shuffling codes.

    Raises:
      UnknownPhones: if no frame of train, or none of test, has a known phone.
    """
    counts, tested = np.zeros((2, num_codes, num_phones), np.int64)
    for codes, phones in map(_known, train):
        np.add.at(counts, (codes, phones), 1)
    if not counts.any():
        raise _unknown("train")
    phone_of = _likeliest(counts)
    rng = np.random.default_rng(seed)
    hits = 0
    for codes, phones in map(_known, test):
        np.add.at(tested, (codes, phones), 1)
        hits += np.count_nonzero(phone_of[rng.permutation(codes)] == phones)
    if not tested.any():
        raise _unknown("test")
    # By predicted and true phone.
    confusion = np.zeros((num_phones, num_phones), np.int64)
    np.add.at(confusion, phone_of, tested)
    spoken = [np.delete(n, list(silence), axis=1) for n in (counts, tested)]
    has_both = bool(silence) and all(n.any() for n in spoken)
    return PhonemeScores(
        all=_accuracy(counts, tested),
        spoken=_accuracy(*spoken) if has_both else None,
        shuffled=float(hits / tested.sum()),
        confusion=confusion.T,
    )


def _accuracy(train: Int[np.ndarray, "K P"], test: Int[np.ndarray, "K P"]) -> Accuracy:
    """Return the accuracy on test, given the frames of each code and phone."""
    frames = int(test.sum())
    hits = np.take_along_axis(test, _likeliest(train)[:, None], axis=1).sum()
    most_frequent = train.sum(axis=0).argmax()
    return Accuracy(
        accuracy=float(hits / frames),
        chance=float(test[:, most_frequent].sum() / frames),
        frames=frames,
    )


def _likeliest(counts: Int[np.ndarray, "K P"]) -> Int[np.ndarray, " K"]:
    """Return the phone that each code most often co-occurs with.

    Ties go to the lower phone. A code that never occurs gets the most frequent phone.
    """
    occurs = counts.any(axis=1)
    return np.where(occurs, counts.argmax(axis=1), counts.sum(axis=0).argmax())


def _known(utterance: Frames) -> Frames:
    # Drop these before shuffling: codes of padding are not part of the utterance.
    is_known = utterance.phones != NO_PHONE
    return Frames(utterance.codes[is_known], utterance.phones[is_known])


def _unknown(split: str) -> UnknownPhones:
    return UnknownPhones(
        f"no {split} frame has a known phone; evaluating codes needs data with phones"
    )
