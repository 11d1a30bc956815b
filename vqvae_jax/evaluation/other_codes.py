"""Codes that are not an utterance's own: does a decoder notice? How many are equal?"""

import numpy as np
from jaxtyping import Int


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
    codes: Int[np.ndarray, "B N"], lengths: Int[np.ndarray, " B"]
) -> Int[np.ndarray, "B N"]:
    """Give each utterance the codes of the next one, over again where it is shorter.

    Rows of length 0 are none, and have no codes to give.
    """
    there = np.flatnonzero(lengths)
    given = codes.copy()
    for row, other in zip(there, np.roll(there, -1), strict=True):
        own = codes[other, : lengths[other]]
        given[row, : lengths[row]] = np.resize(own, lengths[row])
    return given


def equal_codes(
    codes: Int[np.ndarray, "B N"],
    others: Int[np.ndarray, "B N"],
    lengths: Int[np.ndarray, " B"],
) -> float:
    """Return the part of codes, within the lengths, that are the same."""
    counts = np.arange(codes.shape[1]) < lengths[:, None]
    return float((codes == others)[counts].mean())
