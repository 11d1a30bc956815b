"""Fixed-length windows of consecutive codes of an utterance, to train a prior on."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from vqvae_jax.data.codes import CodesSource
from vqvae_jax.data.source import Example, read_columns, read_many
from vqvae_jax.runtime.errors import require


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
