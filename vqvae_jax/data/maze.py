"""First-person worlds: frames of ViZDoom and the actions between them, as a TFDS set.

The set is a substitute for DeepMind Lab (section 4.2), and needs no download, because
the engine ships with the scenarios. Any other set of frames has the same interface if
its examples are single frames in order, with an image feature, integers `action`,
`episode` and `step`, and `metadata["action_names"]`. The TFDS sets `rlu_dmlab_*` are
recordings of DeepMind Lab with the same meaning of an action; their examples are whole
episodes with `steps/observation/pixels` and `steps/action`, whose steps must first be
written as single examples.
"""

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Float, UInt8
from PIL import Image

from vqvae_jax.runtime.errors import require
from vqvae_jax.runtime.extras import imported

ACTIONS = ("forward", "left", "right")
FORWARD, LEFT, RIGHT = range(3)
SIDE = 84

# Number of tics of the engine, 1/35 s each, that an action is held: a turn of up to 7
# degrees, a twelfth of the view.
_TICS = 2
# Depth, out of 255, below which a wall fills the view.
_NEAR = 7
# Distance between the first seeds of splits, so that no two episodes share a seed.
_SPLIT_SEEDS = 1_000_000


class Frame(NamedTuple):
    """The view of the player: its colours, and the depth of each pixel."""

    image: UInt8[np.ndarray, "84 84 3"]
    depth: UInt8[np.ndarray, "120 160"]


@dataclasses.dataclass(kw_only=True)
class MazeConfig(tfds.core.BuilderConfig):
    """Scenario and size of the set.

    Attributes:
      scenario: name of a scenario that ViZDoom ships.
      train_episodes: number of episodes of the train split.
      eval_episodes: number of episodes of the validation split and of the test split.
      steps: number of frames per episode.
    """

    scenario: str = "my_way_home"
    train_episodes: int = 300
    eval_episodes: int = 25
    steps: int = 100


class Maze(tfds.core.GeneratorBasedBuilder):
    """Frames [84, 84, 3] in order, episode by episode, with `FRAME_COLUMNS`.

    `action` is the index in `ACTIONS` of the action between this frame and the next
    one of the episode. `episode` is the seed of the episode; splits share no seeds. The
    player is a `Walker`, which repeats an action for some steps and turns away from
    walls.
    """

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = (
        MazeConfig(name="my_way_home", description="Rooms of different walls."),
        MazeConfig(
            name="health_gathering_supreme",
            description="A labyrinth with uniform walls and objects on the floor.",
            scenario="health_gathering_supreme",
        ),
        MazeConfig(
            name="small",
            description="Less than half of my_way_home.",
            train_episodes=120,
            eval_episodes=10,
        ),
        MazeConfig(
            name="tiny",
            description="A few seconds of my_way_home, for tests.",
            train_episodes=3,
            eval_episodes=2,
            steps=12,
        ),
    )

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            description="Frames and actions of a walker through worlds of ViZDoom.",
            homepage="https://vizdoom.farama.org",
            features=tfds.features.FeaturesDict(
                {
                    # Smaller than PNG, four times faster to read, needs no TensorFlow.
                    "image": tfds.features.Tensor(
                        shape=(SIDE, SIDE, 3), dtype=np.uint8, encoding="zlib"
                    ),
                    "action": tfds.features.Scalar(dtype=np.int32),
                    "episode": tfds.features.Scalar(dtype=np.int32),
                    "step": tfds.features.Scalar(dtype=np.int32),
                }
            ),
            metadata=tfds.core.MetadataDict(action_names=ACTIONS),
            disable_shuffling=True,
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[tuple[int, dict]]]:
        del dl_manager
        config = self.builder_config
        sizes = {
            "train": config.train_episodes,
            "validation": config.eval_episodes,
            "test": config.eval_episodes,
        }
        return {
            split: self._generate_examples(number * _SPLIT_SEEDS, episodes)
            for number, (split, episodes) in enumerate(sizes.items())
        }

    def _generate_examples(
        self, first_seed: int, episodes: int
    ) -> Iterator[tuple[int, dict]]:
        steps = self.builder_config.steps
        seed = first_seed
        with World(self.builder_config.scenario) as world:
            for episode in range(episodes):
                while (played := play(world, seed=seed, steps=steps)) is None:
                    seed += 1
                for step, (image, action) in enumerate(zip(*played, strict=True)):
                    yield (
                        episode * steps + step,
                        {
                            "image": image,
                            "action": action,
                            "episode": seed,
                            "step": step,
                        },
                    )
                seed += 1


class World:
    """The engine, without a window, sound or overlays."""

    def __init__(self, scenario: str):
        """Start the engine in a scenario that ViZDoom ships.

        Raises:
          UserError: ViZDoom is not installed, or ships no such scenario.
        """
        vizdoom = imported("vizdoom", purpose="for data.name='maze'", extra="worlds")
        settings = Path(vizdoom.scenarios_path) / f"{scenario}.cfg"
        require(
            settings.is_file(),
            f"ViZDoom ships no scenario {scenario!r}; choose one of "
            f"{', '.join(sorted(path.stem for path in settings.parent.glob('*.cfg')))}",
        )
        game = vizdoom.DoomGame()
        game.load_config(str(settings))
        game.set_mode(vizdoom.Mode.PLAYER)
        game.set_window_visible(False)
        game.set_sound_enabled(False)
        game.set_screen_resolution(vizdoom.ScreenResolution.RES_160X120)
        game.set_screen_format(vizdoom.ScreenFormat.RGB24)
        game.set_depth_buffer_enabled(True)
        for layer in ("hud", "weapon", "crosshair", "decals", "particles", "messages"):
            getattr(game, f"set_render_{layer}")(False)
        button = vizdoom.Button
        game.set_available_buttons(
            [button.MOVE_FORWARD, button.TURN_LEFT, button.TURN_RIGHT]
        )
        game.set_episode_timeout(0)
        # The engine writes settings and other files to the current directory.
        self._folder = tempfile.TemporaryDirectory()
        with contextlib.chdir(self._folder.name):
            game.init()
        self._game = game

    def __enter__(self) -> "World":
        return self

    def __exit__(self, *error: Any) -> None:
        self._game.close()
        self._folder.cleanup()

    def start(self, *, seed: int) -> None:
        """Start an episode; the seed determines the start and all random events."""
        self._game.set_seed(seed)
        self._game.new_episode()

    def look(self) -> Frame | None:
        """Return the current frame, None if the episode is over."""
        if self._game.is_episode_finished():
            return None
        state = self._game.get_state()
        # Scale the whole view, 90 degrees wide, to a square.
        screen = Image.fromarray(state.screen_buffer)
        image = screen.resize((SIDE, SIDE), Image.Resampling.BOX)
        return Frame(np.asarray(image), state.depth_buffer)

    def act(self, action: int) -> None:
        """Hold one of `ACTIONS` for `_TICS` tics."""
        self._game.make_action([float(action == i) for i in range(len(ACTIONS))], _TICS)


class Walker:
    """A policy that repeats actions for a while and turns away from near walls."""

    def __init__(self, rng: np.random.Generator):
        """Start without an action; the first frame determines it."""
        self._rng = rng
        self._action, self._remaining = FORWARD, 0

    def choose(self, depth: UInt8[np.ndarray, "H W"]) -> int:
        """Return the action for a frame of these depths."""
        ahead, to_left, to_right = _distances(depth)
        if ahead < _NEAR:
            if self._action == FORWARD:
                # Turn to the more open side, until the way is free.
                self._repeat(LEFT if to_left > to_right else RIGHT)
        elif self._remaining == 0:
            turns = self._action == FORWARD and self._rng.random() < 0.6
            self._repeat(int(self._rng.choice([LEFT, RIGHT])) if turns else FORWARD)
        self._remaining = max(0, self._remaining - 1)
        return self._action

    def _repeat(self, action: int) -> None:
        self._action, self._remaining = action, int(self._rng.integers(2, 9))


def play(
    world: World, *, seed: int, steps: int
) -> tuple[list[UInt8[np.ndarray, "84 84 3"]], list[int]] | None:
    """Play `steps` frames; return them and the action after each.

    Return None if the episode ends earlier, for example because its goal is reached.
    """
    world.start(seed=seed)
    walker = Walker(np.random.default_rng(seed))
    images, actions = [], []
    for _ in range(steps):
        frame = world.look()
        if frame is None:
            return None
        images.append(frame.image)
        actions.append(walker.choose(frame.depth))
        world.act(actions[-1])
    return images, actions


def _distances(depth: UInt8[np.ndarray, "H W"]) -> Float[np.ndarray, "3"]:
    """Return the distances ahead, to the left and to the right, at eye level."""
    height, width = depth.shape
    level = depth[height * 2 // 5 : height * 3 // 5].mean(axis=0)
    ahead = level[width * 2 // 5 : width * 3 // 5].min()
    return np.array([ahead, level[: width // 2].mean(), level[width // 2 :].mean()])
