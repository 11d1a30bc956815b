"""Pictures: sizes, pixels, and no trace in matplotlib's settings."""

import io

import matplotlib
import numpy as np
import pytest
from PIL import Image

from vqvae_jax.report import figures


def pixels(png):
    picture = Image.open(io.BytesIO(png))
    assert (picture.format, picture.mode) == ("PNG", "RGBA")
    return np.asarray(picture)


def draw(shape):
    return np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)


class TestImageGrid:
    def test_grey_is_enlarged_with_transparent_gaps(self):
        """Three 8x8 images in two columns, each pixel a square of 8x8."""
        images = draw((3, 8, 8, 1))
        grid = pixels(figures.image_grid(images, columns=2, gap=4))
        assert grid.shape == (64 + 4 + 64, 64 + 4 + 64, 4)
        places = [(0, 0), (0, 68), (68, 0)]
        for image, (top, left) in zip(images, places, strict=True):
            tile = grid[top : top + 64, left : left + 64]
            for i, j in np.ndindex(8, 8):
                square = tile[8 * i : 8 * i + 8, 8 * j : 8 * j + 8]
                assert (square == [*[image[i, j, 0]] * 3, 255]).all()
        shown = np.zeros(grid.shape[:2], bool)
        for top, left in places:
            shown[top : top + 64, left : left + 64] = True
        np.testing.assert_array_equal(grid[..., 3], np.where(shown, 255, 0))

    def test_colours_and_other_shapes(self):
        """The longer side decides: 64 // 10 = 6."""
        images = draw((2, 5, 10, 3))
        grid = pixels(figures.image_grid(images, columns=2, gap=1))
        assert grid.shape == (30, 60 + 1 + 60, 4)
        np.testing.assert_array_equal(grid[::6, :60:6, :3], images[0])
        np.testing.assert_array_equal(grid[5::6, 66::6, :3], images[1])
        assert (grid[:, 60] == 0).all()

    def test_large_images_keep_their_size(self):
        images = draw((1, 70, 40, 3))
        grid = pixels(figures.image_grid(images, columns=1))
        np.testing.assert_array_equal(grid[..., :3], images[0])

    def test_a_short_row_keeps_the_columns(self):
        assert pixels(figures.image_grid(draw((1, 64, 64, 1)), columns=3)).shape == (
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
        # 33 pixels are not enlarged; more than 16 would be hard to see.
        ((33, 33, 3), 16),
        ((128, 128, 3), 8),
        # The longer side decides on the enlargement, the width on the columns.
        ((64, 256, 3), 4),
        ((256, 64, 3), 16),
        ((2048, 2048, 3), 1),
    ],
)
def test_columns_fill_a_row(shape, columns):
    assert figures.columns_for(shape) == columns
    width = shape[1] * max(1, 64 // max(shape[:2]))
    assert columns == 16 or (columns + 1) * width > 1024 or columns == 1


def test_reconstructions_lie_below_their_originals():
    """In a short last row too."""
    originals, decoded = draw((2, 3, 64, 64, 1))
    grid = pixels(figures.reconstructions(originals, decoded, columns=2))
    rows = [originals[:2], decoded[:2], originals[2:], decoded[2:]]
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            tile = grid[68 * i : 68 * i + 64, 68 * j : 68 * j + 64]
            np.testing.assert_array_equal(tile[..., :1], image)


ENTRIES = [
    {"stage": stage, "split": split, "step": step, "examples_per_second": 9.0}
    | {"loss": 1 / step, "psnr_db": float(step), "perplexity": 3.0, "gradient": 1.0}
    for stage in ("vqvae", "prior")
    for split in ("train", "validation")
    for step in (5, 10, 15)
]
COUNTS = np.array([[3.0, 0.0, 9.0, 1.0], [1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]])


@pytest.mark.parametrize(
    ("plot", "inches"),
    [
        # Four terms in rows of three.
        (lambda: figures.learning_curves(ENTRIES, "prior"), (3 * 3.4, 2 * 2.3)),
        (lambda: figures.codebook_usage(COUNTS), (7.0, 2.6)),
        (lambda: figures.codebook_usage(COUNTS[:1]), (7.0, 2.6)),
    ],
)
def test_plots_are_pictures_and_leave_matplotlib_alone(plot, inches):
    # Settings of the user's own, which no earlier plot can have made.
    with matplotlib.rc_context({"axes.prop_cycle": matplotlib.cycler(color=["red"])}):
        before = dict(matplotlib.rcParams)
        picture = pixels(plot())
        assert dict(matplotlib.rcParams) == before
    height, width, _ = picture.shape
    assert (width, height) == pytest.approx([144 * x for x in inches], abs=1)
    colours = {tuple(c) for c in picture.reshape(-1, 4)[:, :3].tolist()}
    assert len(colours) > 10
    first = tuple(bytes.fromhex(figures._COLOURS[0][1:]))
    assert first in colours


class TestConfusion:
    def draw(self, counts):
        names = [f"P{i}" for i in range(len(counts))]
        return pixels(figures.confusion(np.array(counts), names))[..., :3]

    def dark(self, counts):
        """The middle of the darkest cell, as parts of the width and the height."""
        picture = self.draw(counts)
        height, width, _ = picture.shape
        rows, columns = np.nonzero((picture == (8, 48, 107)).all(axis=-1))
        # The scale beside it has that colour too, in a few columns at the right.
        is_cell = columns < 0.8 * width
        return columns[is_cell].mean() / width, rows[is_cell].mean() / height

    def test_rows_are_true_classes_from_the_top(self):
        """All of class 0 is taken for 2: in the upper row, and not at the left."""
        across, down = self.dark([[0, 0, 5, 0], *[[2, 2, 2, 2]] * 3])
        assert 0.4 < across < 0.65
        assert 0.05 < down < 0.25

    def test_rows_are_parts(self):
        """However many a class has, and a class that has none is no error."""
        counts = np.array([[3, 1, 0], [0, 0, 0], [2, 0, 2]])
        once = self.draw(counts)
        np.testing.assert_array_equal(self.draw(counts * [[1], [5], [70]]), once)
        assert (self.draw(counts[:, [1, 0, 2]]) != once).any()
        assert (once == (226, 232, 240)).all(axis=-1).mean() > 0.05

    def test_grows_with_the_classes(self):
        few, some, many = (self.draw(np.eye(n, dtype=int)) for n in (2, 10, 41))
        assert few.shape == some.shape
        # Names of 8 points below each other.
        assert len(many) / 144 > 41 * 8 * 1.2 / 72


def test_curves_are_of_one_stage_and_one_split_each():
    """Another stage's entries change nothing; those of this stage do."""
    own = [entry for entry in ENTRIES if entry["stage"] == "vqvae"]
    whole = figures.learning_curves(ENTRIES, "vqvae")
    assert figures.learning_curves(own, "vqvae") == whole
    train = [entry for entry in own if entry["split"] == "train"]
    assert figures.learning_curves(train, "vqvae") != whole
