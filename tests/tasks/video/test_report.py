"""The report shows recorded frames next to drawn ones."""

import io

import numpy as np
import pytest
from PIL import Image

from vqvae_jax.data.dataset import Dataset
from vqvae_jax.experiment import Experiment
from vqvae_jax.pipeline.run import Context
from vqvae_jax.report.page import render
from vqvae_jax.tasks.video import gif
from vqvae_jax.tasks.video.report import video_sections
from vqvae_jax.workdir import Workdir

CLIPS, ROWS, FRAMES, SIDE = 5, 2, 4, 12


class Frames:
    """Frames whose pixels are the frame's index."""

    def __len__(self):
        return 100

    def __getitem__(self, index):
        image = np.full((SIDE, SIDE, 3), index, np.uint8)
        return {"image": image, "label": np.zeros((), np.int32)}


@pytest.fixture
def sections(tmp_path, make_config):
    rng = np.random.default_rng(0)
    images = rng.integers(
        256, size=(CLIPS, ROWS, FRAMES, SIDE, SIDE, 3), dtype=np.uint8
    )
    workdir = Workdir(tmp_path)
    workdir.write_arrays(
        workdir.samples,
        images=images.reshape(-1, SIDE, SIDE, 3),
        labels=np.zeros(CLIPS * ROWS * FRAMES, int),
        codes=np.zeros((CLIPS, ROWS, FRAMES, 3, 3, 1), int),
        true_codes=np.zeros((CLIPS, FRAMES, 3, 3, 1), int),
        samples_per_second=1.0,
        class_names=np.array(["left", "right"]),
        frame=np.array([8, 20, 40, 60, 80]),
        given_frames=2,
    )
    dataset = Dataset(Frames(), Frames(), Frames(), (), (SIDE, SIDE, 3))
    experiment = Experiment.from_config(make_config("maze_video:small", {}))
    return video_sections(Context(workdir, experiment, dataset)), images


def test_rows_are_the_recorded_and_the_drawn_frames(sections):
    (animations, strips), images = sections
    filmed = np.broadcast_to(
        np.arange(20, 24, dtype=np.uint8)[:, None, None, None], images.shape[2:]
    )
    clips = np.concatenate([filmed[None], images[1]])
    names = ("filmed", "left", "right")
    assert strips.pictures[1].image == gif.strips(clips, names, given=2)
    assert animations.cards[1].image == gif.animation(clips, names, given=2)
    assert len(strips.pictures) == len(animations.cards) == gif.SHOWN


def test_page_embeds_animations_as_gif_and_strips_as_png(sections):
    page = render("Video", results={}, sections=sections[0], config={})
    assert page.count("data:image/gif;base64,R0lGOD") == gif.SHOWN
    # A strip and, for readers who prefer no motion, a still image of each animation.
    assert page.count("data:image/png;base64,iVBOR") == 2 * gif.SHOWN
    with Image.open(io.BytesIO(sections[0][0].cards[0].image)) as image:
        assert image.n_frames == FRAMES
