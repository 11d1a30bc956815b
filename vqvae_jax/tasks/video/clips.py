"""Clips: the codes of consecutive frames of an episode and the actions between them."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from vqvae_jax.data.codes import CodesSource
from vqvae_jax.data.source import Example, read_columns, read_many
from vqvae_jax.runtime.errors import require


class ClipsSource:
    """Clips of T frames: `{"codes": [T, *grid], "action": [T], "frame": []}`, int32.

    A clip never spans two episodes. The last action of a clip leads to the frame after
    it; `frame` is the index of the first frame among the codes.

    Args:
        codes: codes of frames in any order, with the columns action, episode and step.
        length: T.
        stride: frames between the starts of two clips of an episode; if it equals
            `length`, clips do not overlap.

    Raises:
        UserError: if the codes are not codes of frames, an action is out of range, a
            frame of an episode is missing, or an episode is shorter than a clip.
    """

    def __init__(self, codes: CodesSource, *, length: int, stride: int = 1):
        self._codes = codes
        columns = _columns(codes)
        num_actions = len(codes.metadata.action_names)
        actions = columns["action"]
        require(
            bool(actions.min() >= 0 and actions.max() < num_actions),
            f"actions of frames must be in 0 ... {num_actions - 1}, one of "
            f"{', '.join(codes.metadata.action_names)}; got {actions.min()} ... "
            f"{actions.max()}",
        )
        clips = [
            frames[start : start + length]
            for frames in _episodes(columns, length)
            for start in range(0, len(frames) - length + 1, stride)
        ]
        self._clips: Int[np.ndarray, "n T"] = np.stack(clips)

    def __len__(self) -> int:
        return len(self._clips)

    def __getitem__(self, index: int) -> Example:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Example]:
        wanted = self._clips[list(indices)]
        # Overlapping clips share frames; read each frame once.
        unique, inverse = np.unique(wanted, return_inverse=True)
        frames = read_many(self._codes, unique.tolist())
        return [
            {
                **{
                    key: np.stack([frames[i][key] for i in row])
                    for key in ("codes", "action")
                },
                "frame": np.asarray(clip[0], np.int32),
            }
            for clip, row in zip(wanted, inverse.reshape(wanted.shape), strict=True)
        ]


def _columns(codes: CodesSource) -> dict[str, Int[np.ndarray, " n"]]:
    names = ("action", "episode", "step")
    missing = [name for name in names if name not in codes.metadata.columns]
    require(
        not missing,
        f"the codes have no column {' and no column '.join(missing)}; clips need codes "
        "of the frames of a world, such as data.name='maze'",
    )
    return read_columns(codes, *names)


def _episodes(
    columns: dict[str, Int[np.ndarray, " n"]], length: int
) -> list[Int[np.ndarray, " frames"]]:
    """Return the indices of the frames of each episode, sorted by step."""
    order = np.lexsort((columns["step"], columns["episode"]))
    number, steps = columns["episode"][order], columns["step"][order]
    starts = np.flatnonzero(np.diff(number)) + 1
    for episode in np.split(np.arange(len(order)), starts):
        name = f"episode {number[episode[0]]}"
        require(
            bool((np.diff(steps[episode]) == 1).all()),
            f"{name} has missing or duplicate frames; prepare the frames again",
        )
        require(
            len(episode) >= length,
            f"{name} has {len(episode)} frames, fewer than the {length} of a clip; "
            "choose shorter clips or a data set with longer episodes",
        )
    return np.split(order, starts)
