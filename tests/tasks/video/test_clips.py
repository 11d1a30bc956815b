"""Clips are consecutive frames of one episode, for any order of the codes."""

import numpy as np
import pytest

from vqvae_jax.data import eval_batches, first_examples
from vqvae_jax.data.codes import CodesSource, write_codes
from vqvae_jax.runtime.errors import UserError
from vqvae_jax.tasks.video.clips import ClipsSource

EPISODES = {7: 5, 3: 8, 9: 6}
NAMES = ("forward", "left", "right")


def columns_of(episodes):
    rng = np.random.default_rng(0)
    n = sum(episodes.values())
    return {
        "action": rng.integers(3, size=n),
        "episode": np.repeat([*episodes], [*episodes.values()]),
        "step": np.concatenate([np.arange(length) for length in episodes.values()]),
    }


def make(directory, columns, *, order=None, names=NAMES):
    """Write codes whose first cell is the episode and whose second is the step."""
    n = len(next(iter(columns.values())))
    order = np.arange(n) if order is None else order
    columns = {name: values[order] for name, values in columns.items()}
    codes = np.zeros((n, 2, 1, 1), int)
    if "episode" in columns:
        codes[:, 0, 0, 0], codes[:, 1, 0, 0] = columns["episode"], columns["step"]
    write_codes(
        directory / "codes",
        batches=[(codes, columns)],
        num_codes=16,
        class_names=[],
        fingerprint="",
        action_names=names,
    )
    return CodesSource(directory / "codes")


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_clips_are_the_windows_of_each_episode(tmp_path, stride):
    columns = columns_of(EPISODES)
    order = np.random.default_rng(1).permutation(len(columns["step"]))
    source = make(tmp_path, columns, order=order)
    clips = first_examples(ClipsSource(source, length=4, stride=stride), 100)
    found = [(c[0, 0, 0, 0], c[0, 1, 0, 0]) for c in clips["codes"]]
    expected = [
        (episode, start)
        for episode, length in sorted(EPISODES.items())
        for start in range(0, length - 3, stride)
    ]
    assert found == expected
    assert (clips["codes"][:, :, 0] == clips["codes"][:, :1, 0]).all()
    steps = clips["codes"][:, :, 1, 0, 0]
    np.testing.assert_array_equal(
        steps - steps[:, :1], np.tile(np.arange(4), (len(found), 1))
    )
    # Actions match those written with the frames.
    written = {
        (e, s): a
        for e, s, a in zip(
            columns["episode"], columns["step"], columns["action"], strict=True
        )
    }
    for (episode, start), actions in zip(found, clips["action"], strict=True):
        assert [*actions] == [written[episode, start + t] for t in range(4)]
    for i, (episode, start) in enumerate(found):
        first = source[int(clips["frame"][i])]
        assert (first["episode"], first["step"]) == (episode, start)


def test_clips_form_batches(tmp_path):
    clips = ClipsSource(make(tmp_path, columns_of(EPISODES)), length=5)
    assert len(clips) == 1 + 4 + 2
    batches = list(eval_batches(clips, batch_size=4))
    assert [b["mask"].sum() for b in batches] == [4, 3]
    assert batches[0]["codes"].shape == (4, 5, 2, 1, 1)
    assert batches[0]["action"].shape == (4, 5)
    assert batches[0]["codes"].dtype == batches[0]["action"].dtype == np.int32


def test_episode_shorter_than_a_clip_raises(tmp_path):
    source = make(tmp_path, columns_of(EPISODES))
    with pytest.raises(UserError, match="episode 7 has 5 frames, fewer than the 6"):
        ClipsSource(source, length=6)


@pytest.mark.parametrize("action", [-1, 3])
def test_action_out_of_range_raises(tmp_path, action):
    columns = columns_of(EPISODES)
    columns["action"][4] = action
    with pytest.raises(UserError, match=r"0 ... 2, one of forward, left, right; got"):
        ClipsSource(make(tmp_path, columns), length=4)


def test_missing_frame_raises(tmp_path):
    columns = columns_of(EPISODES)
    kept = np.arange(len(columns["step"])) != 2
    columns = {name: values[kept] for name, values in columns.items()}
    with pytest.raises(UserError, match="episode 7 has missing or duplicate frames"):
        ClipsSource(make(tmp_path, columns), length=3)


def test_codes_of_images_raise(tmp_path):
    source = make(tmp_path, {"label": np.zeros(5, int)})
    columns = "no column action and no column episode and no column step"
    with pytest.raises(UserError, match=f"have {columns}"):
        ClipsSource(source, length=2)
