"""The report shows recorded frames next to drawn ones, and marks the given ones."""

import io
from importlib.util import find_spec

import numpy as np
import pytest
from page_checks import assert_accessible
from PIL import Image

from vqvae_jax.data.dataset import Dataset
from vqvae_jax.experiment import Experiment
from vqvae_jax.pipeline.run import Context
from vqvae_jax.report.page import render
from vqvae_jax.tasks.video.report import SHOWN, animation_gif, strip_png, video_sections
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
    assert strips.pictures[1].image == strip_png(clips, names, given=2)
    assert animations.cards[1].image == animation_gif(clips, names, given=2)
    assert len(strips.pictures) == len(animations.cards) == SHOWN


def test_page_embeds_animations_as_gif_and_strips_as_png(sections):
    page = render("Video", results={}, sections=sections[0], config={})
    assert page.count("data:image/gif;base64,R0lGOD") == SHOWN
    # A strip and, for readers who prefer no motion, a still image of each animation.
    assert page.count("data:image/png;base64,iVBOR") == 2 * SHOWN
    with Image.open(io.BytesIO(sections[0][0].cards[0].image)) as image:
        assert image.n_frames == FRAMES


NAMES = ("left", "right")
ORANGE, BLUE = (221, 107, 32), (43, 108, 176)


def clips(side=84, channels=3):
    rng = np.random.default_rng(0)
    return rng.integers(256, size=(2, 5, side, side, channels), dtype=np.uint8)


def test_strip_has_one_row_per_clip_and_one_column_per_frame():
    video = clips()
    with Image.open(io.BytesIO(strip_png(video, NAMES, given=2))) as image:
        pixels = np.asarray(image)
    assert pixels.shape == (4 + 2 * 87, 104 + 5 * 87 - 3, 3)
    for row in range(2):
        for t in range(5):
            top, left = 7 + 87 * row, 104 + 87 * t
            tile = pixels[top : top + 84, left : left + 84]
            np.testing.assert_array_equal(tile, video[row, t])
    bar = [tuple(pixels[1, 104 + 87 * t + 40]) for t in range(5)]
    assert bar == [ORANGE] * 2 + [BLUE] * 3
    # The names are to the left of their rows.
    assert (pixels[7:91, :100] != 255).any()
    assert (pixels[94:178, :100] != 255).any()


def test_small_grey_frames_are_enlarged():
    video = clips(side=8, channels=1)
    with Image.open(io.BytesIO(strip_png(video, NAMES, given=1))) as image:
        pixels = np.asarray(image)
    enlarged = video[0, 0].repeat(10, axis=0).repeat(10, axis=1)
    np.testing.assert_array_equal(pixels[7:87, 104:184], enlarged.repeat(3, axis=2))


def test_animation_loops_over_all_frames():
    video = clips()
    with Image.open(io.BytesIO(animation_gif(video, NAMES, given=2))) as image:
        assert (image.format, image.n_frames) == ("GIF", 5)
        assert image.info["loop"] == 0
        shown, bars = [], []
        for t in range(5):
            image.seek(t)
            pixels = np.asarray(image.convert("RGB")).astype(int)
            bars.append(pixels[21, 80])
            shown.append(pixels[24:108, :84])
    assert pixels.shape == (108, 2 * 87 - 3, 3)
    for t, colour in enumerate([ORANGE] * 2 + [BLUE] * 3):
        # Approximate, because the palette has 128 colours.
        assert np.abs(bars[t] - colour).max() < 40
        assert np.abs(shown[t] - video[0, t].astype(int)).mean() < 40


@pytest.mark.slow
@pytest.mark.skipif(find_spec("vizdoom") is None, reason="vizdoom is not installed")
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_page_is_self_contained_responsive_and_accessible(
    video_run, open_page, barriers, theme
):
    path = video_run / "report.html"
    assert_accessible(open_page, barriers, path, theme=theme, playgrounds=1)
