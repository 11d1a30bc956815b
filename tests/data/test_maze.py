"""Frames of a world, compared with the engine under the recorded actions."""

import sys
from importlib.util import find_spec

import numpy as np
import pytest

from vqvae_jax.data import (
    DataConfig,
    first_examples,
    maze,
    open_dataset,
)
from vqvae_jax.runtime.errors import UserError

has_vizdoom = pytest.mark.skipif(
    find_spec("vizdoom") is None, reason="vizdoom is not installed: pip install vizdoom"
)
EPISODES = {"train": (3, 0), "validation": (2, 10**6), "test": (2, 2 * 10**6)}
STEPS = 12


def config(data_dir, **changes):
    options = {"name": "maze/tiny", "image_size": 84, "channels": 3} | changes
    return DataConfig(source="tfds", data_dir=str(data_dir), **options)


@pytest.fixture(scope="module")
def dataset(maze_dir):
    return open_dataset(config(maze_dir))


@has_vizdoom
class TestFrames:
    def test_sizes_and_columns(self, dataset):
        assert dataset.action_names == maze.ACTIONS == ("forward", "left", "right")
        assert dataset.class_names == ()
        for split, (episodes, first) in EPISODES.items():
            frames = first_examples(getattr(dataset, split), 1000)
            assert frames["image"].shape == (episodes * STEPS, 84, 84, 3)
            assert frames["image"].dtype == np.uint8
            # In order, with different episode numbers in each split.
            numbers = first + np.repeat(np.arange(episodes), STEPS)
            np.testing.assert_array_equal(frames["episode"], numbers)
            np.testing.assert_array_equal(
                frames["step"], np.tile(np.arange(STEPS), episodes)
            )
            assert set(frames["action"]) <= {0, 1, 2}

    def test_splits_share_no_frame(self, dataset):
        seen = [
            {bytes(image) for image in first_examples(source, 1000)["image"]}
            for source in dataset[:3]
        ]
        assert len(set.union(*seen)) == sum(map(len, seen))

    @pytest.mark.parametrize("split", ["train", "test"])
    def test_an_action_leads_to_the_next_frame(self, dataset, split):
        """Replaying the actions in the engine gives the same frames."""
        frames = first_examples(getattr(dataset, split), 2 * STEPS)
        with maze.World("my_way_home") as world:
            for first in (0, STEPS):
                world.start(seed=EPISODES[split][1] + first // STEPS)
                episode = slice(first, first + STEPS)
                for image, action in zip(
                    frames["image"][episode], frames["action"][episode], strict=True
                ):
                    np.testing.assert_array_equal(world.look().image, image)
                    world.act(int(action))

    def test_left_and_right_turn_the_view(self):
        """After a turn to the right, pixels from the right are in the middle."""
        middle = slice(30, 54)
        moved = {}
        for action in (maze.LEFT, maze.RIGHT):
            with maze.World("my_way_home") as world:
                world.start(seed=3)
                before = world.look().image.astype(int)[20:64]
                for _ in range(2):
                    world.act(action)
                after = world.look().image.astype(int)[20:64, middle]
            errors = {
                shift: np.abs(np.roll(before, -shift, 1)[:, middle] - after).mean()
                for shift in range(-20, 21)
            }
            moved[action] = min(errors, key=errors.get)
        assert moved[maze.LEFT] < 0 < moved[maze.RIGHT]

    def test_an_episode_that_ends_early_is_dropped(self):
        class Short(maze.World):
            def __init__(self):
                pass

            def start(self, *, seed):
                self.remaining = 3

            def look(self):
                self.remaining -= 1
                depth = np.full((120, 160), 50, np.uint8)
                image = np.zeros((84, 84, 3), np.uint8)
                return maze.Frame(image, depth) if self.remaining >= 0 else None

            def act(self, action):
                pass

        assert maze.play(Short(), seed=0, steps=4) is None
        images, actions = maze.play(Short(), seed=0, steps=3)
        assert len(images) == len(actions) == 3

    def test_the_engine_writes_nothing_to_the_current_folder(
        self, tmp_path, monkeypatch
    ):
        monkeypatch.chdir(tmp_path)
        with maze.World("my_way_home") as world:
            world.start(seed=0)
        assert list(tmp_path.iterdir()) == []

    def test_an_unknown_scenario_raises(self):
        with pytest.raises(UserError, match=r"no scenario 'e1m1'.*my_way_home"):
            maze.World("e1m1")


class TestWalker:
    def test_it_turns_to_the_open_side_until_the_way_is_free(self):
        near = np.full((120, 160), 3, np.uint8)
        free = np.full((120, 160), 50, np.uint8)
        open_right = near.copy()
        open_right[:, 100:] = 50
        for wall, turn in ((open_right, maze.RIGHT), (open_right[:, ::-1], maze.LEFT)):
            walker = maze.Walker(np.random.default_rng(0))
            assert [walker.choose(wall) for _ in range(20)] == [turn] * 20
            assert walker.choose(free) == maze.FORWARD

    def test_it_repeats_each_of_the_actions(self):
        walker = maze.Walker(np.random.default_rng(0))
        free = np.full((120, 160), 50, np.uint8)
        actions = np.array([walker.choose(free) for _ in range(2000)])
        assert np.bincount(actions).min() > 200
        lengths = np.diff(np.flatnonzero(np.diff(actions)))
        assert lengths.min() >= 2


def test_a_missing_engine_raises(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "vizdoom", None)
    with pytest.raises(
        UserError, match=r"not installed: pip install 'vqvae_jax\[worlds\]'"
    ):
        open_dataset(config(tmp_path))


def test_an_unknown_size_raises(tmp_path):
    with pytest.raises(UserError, match=r"data\.name='maze/huge': .*huge not found"):
        open_dataset(config(tmp_path, name="maze/huge"))
