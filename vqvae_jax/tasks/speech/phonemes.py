"""Phonemes from codes (section 4.3): what do codes that nobody labelled tell of speech?

Each code is mapped to the phone that it most often stands for on train, and the phones
of held-out utterances are told from their codes alone, frame by frame, without regard
to the frames before and after. The paper: 128 codes at 25 Hz tell 49.3 % of 41 phones
right, where the most frequent phone alone has 7.2 %.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from vqvae_jax.runtime.errors import UserError
from vqvae_jax.tasks.speech.phones import NO_PHONE


class UnknownPhones(UserError):
    """There is no frame whose phone is known."""


class Frames(NamedTuple):
    """One utterance, as many samples a frame as a code stands for.

    codes: `[n]`.
    phones: `[n]`, the one said in each frame; `NO_PHONE` where it is not known, which
      leaves the frame out.
    """

    codes: Int[np.ndarray, " n"]
    phones: Int[np.ndarray, " n"]


class PhonemeScores(NamedTuple):
    """How well codes tell phones, on the frames of test whose phone is known.

    accuracy: the part of them that the code's phone is right for.
    chance: that of the phone that is most frequent on train, for every frame.
    shuffled: `accuracy` with the codes of each utterance in another order, which knows
      what is said but not when.
    frames: how many there are.
    confusion: `[P, P]` of them, by true phone and by the code's phone.
    """

    accuracy: float
    chance: float
    shuffled: float
    frames: int
    confusion: Int[np.ndarray, "P P"]


def likeliest(
    train: Iterable[Frames], *, num_codes: int, num_phones: int
) -> Int[np.ndarray, " K"]:
    """Return the phone that each code most often stands for, the lower one of two.

    A code that never occurs gets the most frequent phone.

    Raises:
      UnknownPhones: no frame's phone is known.
    """
    return _likeliest(_counts(train, num_codes, num_phones))


def score(
    train: Iterable[Frames],
    test: Iterable[Frames],
    *,
    num_codes: int,
    num_phones: int,
    seed: int = 0,
) -> PhonemeScores:
    """Measure on test what `likeliest` learns on train.

    Args:
      train: utterances to learn from.
      test: others.
      num_codes: K; codes are below it.
      num_phones: P; phones are below it.
      seed: decides on the order of shuffled codes.

    Raises:
      UnknownPhones: no frame's phone is known, on train or on test.
    """
    counts = _counts(train, num_codes, num_phones)
    phone_of = _likeliest(counts)
    most_frequent = counts.sum(axis=0).argmax()
    rng = np.random.default_rng(seed)
    confusion = np.zeros((num_phones, num_phones), np.int64)
    hits = 0
    for codes, phones in map(_known, test):
        np.add.at(confusion, (phones, phone_of[codes]), 1)
        hits += np.count_nonzero(phone_of[rng.permutation(codes)] == phones)
    frames = int(confusion.sum())
    if not frames:
        raise _unknown("test")
    return PhonemeScores(
        accuracy=float(np.trace(confusion) / frames),
        chance=float(confusion[most_frequent].sum() / frames),
        shuffled=float(hits / frames),
        frames=frames,
        confusion=confusion,
    )


def _counts(
    train: Iterable[Frames], num_codes: int, num_phones: int
) -> Int[np.ndarray, "K P"]:
    counts = np.zeros((num_codes, num_phones), np.int64)
    for codes, phones in map(_known, train):
        np.add.at(counts, (codes, phones), 1)
    if not counts.any():
        raise _unknown("train")
    return counts


def _likeliest(counts: Int[np.ndarray, "K P"]) -> Int[np.ndarray, " K"]:
    occurs = counts.any(axis=1)
    return np.where(occurs, counts.argmax(axis=1), counts.sum(axis=0).argmax())


def _known(utterance: Frames) -> Frames:
    # Before codes are shuffled: those of padding belong to no time of the utterance.
    is_known = utterance.phones != NO_PHONE
    return Frames(utterance.codes[is_known], utterance.phones[is_known])


def _unknown(split: str) -> UnknownPhones:
    return UnknownPhones(
        f"the phone of no {split} frame is known; codes are judged by data with phones"
    )
