"""Clips: the codes of successive frames of one episode, with the actions between."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from vqvae_jax.data.codes import CodesSource
from vqvae_jax.data.source import Example, read_columns, read_many
from vqvae_jax.runtime.errors import require


class ClipsSource:
    """Clips of T frames: `{"codes": [T, *grid], "action": [T], "frame": []}`, int32.

    No clip crosses an episode. The last action of a clip led out of it; `frame` is the
    index of the first frame among the codes.

    Args:
        codes: of frames, with the columns action, episode and step, in any order.
        length: T.
        stride: frames between the starts of two clips of an episode; with `length`
            no frame is in two of them.

    Raises:
        UserError: the codes are not of frames, an action is outside the set, a frame
            of an episode is missing, or an episode is shorter than a clip.
    """

    def __init__(self, codes: CodesSource, *, length: int, stride: int = 1):
        self._codes = codes
        columns = _columns(codes)
        num_actions = len(codes.metadata.action_names)
        actions = columns["action"]
        require(
            bool(actions.min() >= 0 and actions.max() < num_actions),
            f"actions of frames must be in 0 ... {num_actions - 1}, one of "
            f"{', '.join(codes.metadata.action_names)}; there are {actions.min()} ... "
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
        # Clips that overlap share frames: each is read once.
        unique, places = np.unique(wanted, return_inverse=True)
        frames = read_many(self._codes, unique.tolist())
        return [
            {
                **{
                    key: np.stack([frames[i][key] for i in row])
                    for key in ("codes", "action")
                },
                "frame": np.asarray(clip[0], np.int32),
            }
            for clip, row in zip(wanted, places.reshape(wanted.shape), strict=True)
        ]


def _columns(codes: CodesSource) -> dict[str, Int[np.ndarray, " n"]]:
    names = ("action", "episode", "step")
    missing = [name for name in names if name not in codes.metadata.columns]
    require(
        not missing,
        f"these codes have no {' and no '.join(missing)}: clips are made of the frames "
        "of a world, such as data.name='maze'",
    )
    return read_columns(codes, *names)


def _episodes(
    columns: dict[str, Int[np.ndarray, " n"]], length: int
) -> list[Int[np.ndarray, " frames"]]:
    """Return the indices of each episode's frames, in the order of their steps."""
    order = np.lexsort((columns["step"], columns["episode"]))
    number, steps = columns["episode"][order], columns["step"][order]
    starts = np.flatnonzero(np.diff(number)) + 1
    for episode in np.split(np.arange(len(order)), starts):
        name = f"episode {number[episode[0]]}"
        require(
            bool((np.diff(steps[episode]) == 1).all()),
            f"{name} has no frame after one of its steps, or has it twice: prepare the "
            "frames again",
        )
        require(
            len(episode) >= length,
            f"{name} has {len(episode)} frames, fewer than the {length} of a clip: "
            "choose shorter clips or a set of longer episodes",
        )
    return np.split(order, starts)
