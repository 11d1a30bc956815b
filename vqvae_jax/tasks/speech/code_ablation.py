"""Replace the codes of utterances, to measure how much a decoder depends on them."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Int

from vqvae_jax.tasks.speech.utterances import UNKNOWN


def shuffle_in_time(
    codes: Int[np.ndarray, "B N"],
    lengths: Int[np.ndarray, " B"],
    generator: np.random.Generator,
) -> Int[np.ndarray, "B N"]:
    """Randomly permute the codes of each utterance, leaving padding in position."""
    shuffled = codes.copy()
    for row, length in zip(shuffled, lengths, strict=True):
        generator.shuffle(row[:length])
    return shuffled


def codes_of_another_utterance(
    codes: Int[np.ndarray, "B N"],
    lengths: Int[np.ndarray, " B"],
    *,
    before: Int[np.ndarray, " n"] | None = None,
) -> Int[np.ndarray, "B N"] | None:
    """Replace the codes of each utterance by those of the next utterance in the batch.

    Codes are repeated or cut to the length of the utterance they replace. Rows of
    length 0 are padding and are ignored. If the batch has a single utterance, use
    `before`, the codes of an earlier utterance; return None if there are none.
    """
    rows = np.flatnonzero(lengths).tolist()
    if len(rows) == 1 and before is None:
        return None
    return _replace_codes(
        codes,
        lengths,
        {
            row: before if row == other else codes[other, : lengths[other]]
            for row, other in zip(rows, rows[1:] + rows[:1], strict=True)
        },
    )


def codes_of_another_sentence(
    codes: Int[np.ndarray, "B N"],
    lengths: Int[np.ndarray, " B"],
    sentences: Int[np.ndarray, " B"],
) -> tuple[Int[np.ndarray, "B N"], Bool[np.ndarray, " B"]]:
    """Replace the codes of each utterance by those of the next different sentence.

    Unknown sentences count as different. Also return whether such an utterance exists;
    if not, the codes are unchanged.
    """
    replacements = {}
    for row in range(len(codes)):
        others = np.roll(np.arange(len(codes)), -1 - row)[:-1]
        differs = (sentences[others] != sentences[row]) | (sentences[row] == UNKNOWN)
        for other in others[differs][:1]:
            replacements[row] = codes[other, : lengths[other]]
    replaced = np.isin(np.arange(len(codes)), [*replacements])
    return _replace_codes(codes, lengths, replacements), replaced


def fraction_of_equal_codes(
    codes: Int[np.ndarray, "B N"],
    others: Int[np.ndarray, "B N"],
    lengths: Int[np.ndarray, " B"],
) -> float:
    """Return the fraction of equal codes within the lengths."""
    mask = np.arange(codes.shape[1]) < lengths[:, None]
    return float((codes == others)[mask].mean())


def _replace_codes(
    codes: Int[np.ndarray, "B N"],
    lengths: Int[np.ndarray, " B"],
    replacements: Mapping[int, Int[np.ndarray, " n"]],
) -> Int[np.ndarray, "B N"]:
    """Replace the codes of rows, repeating or cutting the new ones to length."""
    replaced = codes.copy()
    for row, others in replacements.items():
        replaced[row, : lengths[row]] = np.resize(others, lengths[row])
    return replaced
