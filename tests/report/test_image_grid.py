"""Image grids, panels and error maps: sizes, pixels and colours."""

import io

import numpy as np
import pytest
from PIL import Image

from vqvae_jax.report import image_grid


def pixels(png):
    picture = Image.open(io.BytesIO(png))
    assert (picture.format, picture.mode) == ("PNG", "RGBA")
    return np.asarray(picture)


def draw(shape):
    return np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)


class TestImageGrid:
    def test_enlarges_grey_images_with_transparent_gaps(self):
        """Three 8x8 images in two columns; each pixel becomes a square of 8x8."""
        images = draw((3, 8, 8, 1))
        grid = pixels(image_grid.image_grid(images, columns=2, gap=4))
        assert grid.shape == (64 + 4 + 64, 64 + 4 + 64, 4)
        corners = [(0, 0), (0, 68), (68, 0)]
        for image, (top, left) in zip(images, corners, strict=True):
            tile = grid[top : top + 64, left : left + 64]
            for i, j in np.ndindex(8, 8):
                square = tile[8 * i : 8 * i + 8, 8 * j : 8 * j + 8]
                assert (square == [*[image[i, j, 0]] * 3, 255]).all()
        shown = np.zeros(grid.shape[:2], bool)
        for top, left in corners:
            shown[top : top + 64, left : left + 64] = True
        np.testing.assert_array_equal(grid[..., 3], np.where(shown, 255, 0))

    def test_rgb_and_non_square_images(self):
        """The longer side determines the factor: 64 // 10 = 6."""
        images = draw((2, 5, 10, 3))
        grid = pixels(image_grid.image_grid(images, columns=2, gap=1))
        assert grid.shape == (30, 60 + 1 + 60, 4)
        np.testing.assert_array_equal(grid[::6, :60:6, :3], images[0])
        np.testing.assert_array_equal(grid[5::6, 66::6, :3], images[1])
        assert (grid[:, 60] == 0).all()

    def test_large_images_keep_their_size(self):
        images = draw((1, 70, 40, 3))
        grid = pixels(image_grid.image_grid(images, columns=1))
        np.testing.assert_array_equal(grid[..., :3], images[0])

    def test_short_row_keeps_the_columns(self):
        assert pixels(image_grid.image_grid(draw((1, 64, 64, 1)), columns=3)).shape == (
            64,
            3 * 64 + 2 * 4,
            4,
        )


@pytest.mark.parametrize(
    ("shape", "columns"),
    [
        ((8, 8, 1), 16),
        ((32, 32, 3), 16),
        ((64, 64, 3), 16),
        # 33 pixels are not enlarged; the number of columns is at most 16.
        ((33, 33, 3), 16),
        ((128, 128, 3), 8),
        # The longer side determines the enlargement, the width the columns.
        ((64, 256, 3), 4),
        ((256, 64, 3), 16),
        ((2048, 2048, 3), 1),
    ],
)
def test_columns_fill_a_row(shape, columns):
    assert image_grid.columns_for(shape) == columns
    width = shape[1] * max(1, 64 // max(shape[:2]))
    assert columns == 16 or (columns + 1) * width > 1024 or columns == 1


class TestPanels:
    def test_pictures_fill_panels_of_equal_size(self):
        """An 8x8 image and a 4x4 grid are both enlarged to 128x128."""
        image, codes = draw((8, 8, 1)), draw((4, 4, 3))
        row = pixels(image_grid.panels([image, codes], gap=4))
        assert row.shape == (128, 128 + 4 + 128, 4)
        first, second = row[:, :128], row[:, 132:]
        np.testing.assert_array_equal(first[::16, ::16, :1], image)
        np.testing.assert_array_equal(first[15::16, 15::16, 2:3], image)
        np.testing.assert_array_equal(second[::32, ::32, :3], codes)
        np.testing.assert_array_equal(second[31::32, 31::32, :3], codes)
        assert (row[:, 128:132] == 0).all()

    def test_centres_pictures_that_do_not_fill_the_panel(self):
        """84 pixels are not enlarged; three times 25 leave margins of 4 and 5."""
        row = pixels(image_grid.panels([draw((84, 84, 3)), draw((25, 25, 3))], gap=0))
        opaque = row[..., 3] == 255
        assert opaque[:, :84].all()
        rows, columns = np.nonzero(opaque[:, 84:])
        assert (rows.min(), rows.max()) == (4, 78)
        assert (columns.min(), columns.max()) == (4, 78)

    def test_keeps_transparency(self):
        codes = draw((8, 8, 4))
        codes[..., 3] = 255 * (np.arange(8) % 2)
        row = pixels(image_grid.panels([draw((8, 8, 3)), codes], gap=0))
        np.testing.assert_array_equal(row[::16, 128::16], codes)


def test_error_map_brightness_grows_with_the_error():
    """Errors are averaged over channels; the colours saturate at 64."""
    original = np.zeros((1, 5, 3), np.uint8)
    decoded = original.copy()
    decoded[0, :, 0] = [0, 30, 96, 192, 255]
    decoded[0, :, 1:] = [[0], [0], [0], [0], [255]]
    shown = image_grid.error_map(original, decoded)
    assert shown.shape == (1, 5, 3)
    brightness = shown[0].astype(int).sum(axis=1)
    assert brightness[0] < 10
    assert (np.diff(brightness[:4]) > 50).all()
    np.testing.assert_array_equal(shown[0, 3], shown[0, 4])
    # The sign of the error does not matter.
    np.testing.assert_array_equal(image_grid.error_map(decoded, original), shown)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_png_round_trip(channels):
    image = draw((5, 7, channels))
    with Image.open(io.BytesIO(image_grid.png(image))) as picture:
        np.testing.assert_array_equal(np.asarray(picture).reshape(5, 7, -1), image)
