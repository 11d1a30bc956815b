"""Windows: successive codes of an utterance, as many as a prior is trained on."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from vqvae_jax.data.codes import CodesSource
from vqvae_jax.data.source import Example, read_columns, read_many
from vqvae_jax.runtime.errors import require


class WindowsSource:
    """Windows of N codes: `{"codes": [N], "mask": [N], "speaker": []}`.

    No window is of two utterances. Where an utterance ends within one, "mask" is False
    and the codes mean nothing.

    Args:
        codes: of utterances, `[longest, 1]`, with the columns length and speaker.
        length: N.
        stride: codes between the starts of two windows of an utterance. With `length`
            each code is in exactly one window. With a smaller one, windows start
            wherever they are filled, and an utterance shorter than a window is one.

    Raises:
        UserError: the codes are not of utterances, or the sizes cannot be.
    """

    def __init__(self, codes: CodesSource, *, length: int, stride: int = 1):
        require(length >= 1, f"length must be at least 1, got {length}")
        require(
            1 <= stride <= length, f"stride must be in 1 ... {length}, got {stride}"
        )
        missing = {"length", "speaker"} - set(codes.metadata.columns)
        require(
            not missing,
            f"these codes have no {' and no '.join(sorted(missing))}: windows are made "
            "of the codes of utterances",
        )
        self._codes, self._length = codes, length
        lengths = read_columns(codes, "length")["length"].tolist()
        self._places: Int[np.ndarray, "n 2"] = np.concatenate(
            [
                _starts(utterance, count, length, stride)
                for utterance, count in enumerate(lengths)
            ]
        )

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Example:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Example]:
        places = self._places[list(indices)]
        utterances = read_many(self._codes, places[:, 0].tolist())
        return [
            self._window(utterance, int(start))
            for utterance, start in zip(utterances, places[:, 1], strict=True)
        ]

    def _window(self, utterance: Example, start: int) -> Example:
        here = utterance["codes"][start : start + self._length, 0]
        codes = np.zeros(self._length, np.int32)
        codes[: len(here)] = here
        mask = start + np.arange(self._length) < utterance["length"]
        return {
            "codes": np.where(mask, codes, 0),
            "mask": mask,
            "speaker": utterance["speaker"],
        }


def _starts(
    utterance: int, count: int, length: int, stride: int
) -> Int[np.ndarray, "n 2"]:
    """Return (utterance, start) of the windows of an utterance of so many codes."""
    last = count - 1 if stride == length else max(0, count - length)
    starts = np.arange(0, last + 1, stride, dtype=np.int32)
    return np.stack([np.full_like(starts, utterance), starts], axis=1)
