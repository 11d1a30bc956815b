"""Codes that are not an utterance's own: does a decoder notice? How many are equal?"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Int

from vqvae_jax.tasks.speech.utterances import UNKNOWN


def shuffled_in_time(
    codes: Int[np.ndarray, "B N"],
    lengths: Int[np.ndarray, " B"],
    generator: np.random.Generator,
) -> Int[np.ndarray, "B N"]:
    """Put the codes of each utterance in a random order; padding stays."""
    shuffled = codes.copy()
    for row, length in zip(shuffled, lengths, strict=True):
        generator.shuffle(row[:length])
    return shuffled


def of_another(
    codes: Int[np.ndarray, "B N"],
    lengths: Int[np.ndarray, " B"],
    *,
    before: Int[np.ndarray, " n"] | None = None,
) -> Int[np.ndarray, "B N"] | None:
    """Give each utterance the codes of the next one, over again where it is shorter.

    Rows of length 0 are none, and have no codes to give. An utterance that is alone
    gets the codes `before`, which an utterance before had; without them there are none
    to give, and what is returned is None.
    """
    there = np.flatnonzero(lengths).tolist()
    if len(there) == 1 and before is None:
        return None
    return _given(
        codes,
        lengths,
        {
            row: before if row == other else codes[other, : lengths[other]]
            for row, other in zip(there, there[1:] + there[:1], strict=True)
        },
    )


def of_another_sentence(
    codes: Int[np.ndarray, "B N"],
    lengths: Int[np.ndarray, " B"],
    sentences: Int[np.ndarray, " B"],
) -> tuple[Int[np.ndarray, "B N"], Bool[np.ndarray, " B"]]:
    """Give each utterance the codes of the next one that says something else.

    All are taken for different whose sentence is not known. Returned too is whether
    there is such an utterance; where there is none, codes stay.
    """
    theirs = {}
    for row in range(len(codes)):
        others = np.roll(np.arange(len(codes)), -1 - row)[:-1]
        differs = (sentences[others] != sentences[row]) | (sentences[row] == UNKNOWN)
        for other in others[differs][:1]:
            theirs[row] = codes[other, : lengths[other]]
    return _given(codes, lengths, theirs), np.isin(np.arange(len(codes)), [*theirs])


def equal_codes(
    codes: Int[np.ndarray, "B N"],
    others: Int[np.ndarray, "B N"],
    lengths: Int[np.ndarray, " B"],
) -> float:
    """Return the part of codes, within the lengths, that are the same."""
    counts = np.arange(codes.shape[1]) < lengths[:, None]
    return float((codes == others)[counts].mean())


def _given(
    codes: Int[np.ndarray, "B N"],
    lengths: Int[np.ndarray, " B"],
    theirs: Mapping[int, Int[np.ndarray, " n"]],
) -> Int[np.ndarray, "B N"]:
    """Put others' codes in the place of rows, over again where they are fewer."""
    given = codes.copy()
    for row, others in theirs.items():
        given[row, : lengths[row]] = np.resize(others, lengths[row])
    return given
