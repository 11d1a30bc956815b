"""Strips and animations show every frame and mark the given ones."""

import io

import numpy as np
from PIL import Image

from vqvae_jax.tasks.video import gif

NAMES = ("left", "right")
ORANGE, BLUE = (221, 107, 32), (43, 108, 176)


def clips(side=84, channels=3):
    rng = np.random.default_rng(0)
    return rng.integers(256, size=(2, 5, side, side, channels), dtype=np.uint8)


def test_strip_has_one_row_per_clip_and_one_column_per_frame():
    video = clips()
    with Image.open(io.BytesIO(gif.strips(video, NAMES, given=2))) as image:
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
    with Image.open(io.BytesIO(gif.strips(video, NAMES, given=1))) as image:
        pixels = np.asarray(image)
    enlarged = video[0, 0].repeat(10, axis=0).repeat(10, axis=1)
    np.testing.assert_array_equal(pixels[7:87, 104:184], enlarged.repeat(3, axis=2))


def test_animation_loops_over_all_frames():
    video = clips()
    with Image.open(io.BytesIO(gif.animation(video, NAMES, given=2))) as image:
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
