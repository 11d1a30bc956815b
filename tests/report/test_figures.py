"""Plots: sizes, pixels, theme colours, and no changes to matplotlib's settings."""

import re

import matplotlib
import numpy as np
import pytest

from vqvae_jax.report import figures

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
        (lambda: figures.learning_curves(ENTRIES, "prior")["loss"], (3.2, 2.1)),
        (lambda: figures.codebook_usage(COUNTS), (4.0, 3.0)),
        (lambda: figures.codebook_usage(COUNTS[:1]), (4.0, 3.0)),
    ],
)
def test_plots_have_the_right_size_and_keep_matplotlib_settings(
    plot, inches, pixels_of
):
    # A setting that no earlier plot can have made.
    with matplotlib.rc_context({"axes.prop_cycle": matplotlib.cycler(color=["red"])}):
        before = dict(matplotlib.rcParams)
        picture = pixels_of(plot())
        figures.svg(plot())
        assert dict(matplotlib.rcParams) == before
    height, width, _ = picture.shape
    assert (width, height) == pytest.approx([144 * x for x in inches], abs=1)
    colours = {tuple(c) for c in picture.reshape(-1, 3).tolist()}
    assert len(colours) > 10
    first = tuple(bytes.fromhex(figures.COLOURS[0][1:]))
    assert first in colours


class TestSvg:
    def test_uses_theme_colours(self):
        """Plot colours become CSS variables, and the background is transparent."""
        text = figures.svg(figures.codebook_usage(COUNTS)).decode()
        assert text.startswith("<svg")
        assert text.endswith("</svg>")
        assert not [colour for colour in figures.VARIABLES if colour in text]
        assert "var(--soft)" in text
        assert "var(--series-1)" in text
        assert "#ffffff" not in text
        assert "usage frequency" in text

    def test_ids_are_unique_and_referenced(self):
        first, second = (
            figures.svg(figures.codebook_usage(c)).decode()
            for c in (COUNTS, COUNTS[:1])
        )
        ids = [set(re.findall(r'\bid="([^"]*)"', text)) for text in (first, second)]
        assert ids[0]
        assert not ids[0] & ids[1]
        for text, expected in zip((first, second), ids, strict=True):
            assert set(re.findall(r'(?:url\(#|href="#)([^")]*)', text)) == expected

    def test_is_deterministic(self):
        texts = {figures.svg(figures.codebook_usage(COUNTS)) for _ in range(2)}
        assert len(texts) == 1


class TestMap:
    def test_markers_have_code_colours_and_areas_by_usage(self, pixels_of):
        positions = np.array([[[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]])
        colours = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 9, 9]]], "u1")
        counts = np.array([[10.0, 1.0, 0.0, 5.0]])
        plot = figures.codebook_map(positions, np.array([[0.7, 0.2]]), counts, colours)
        picture = pixels_of(plot)
        red, green, blue = ((picture == c).all(axis=2) for c in colours[0, :3])
        assert red.sum() > 4 * green.sum() > 0
        # An unused code is a cross in the ink colour.
        assert not blue.any()
        centres = [np.argwhere(mask).mean(axis=0) for mask in (red, green)]
        assert centres[0][1] < centres[1][1] - 50
        assert centres[0][0] == pytest.approx(centres[1][0], abs=3)
        assert "PC 1 (70% of variance)" in figures.svg(plot).decode()

    def test_maps_of_many_codebooks_show_the_first_ones(self):
        rng = np.random.default_rng(0)
        plot = figures.codebook_map(
            rng.normal(size=(10, 8, 2)),
            np.full((10, 2), 0.3),
            np.ones((10, 8)),
            np.zeros((10, 8, 3), np.uint8),
        )
        assert len(plot.axes) == figures.MAPPED

    def test_many_codes_are_rasterized(self):
        rng = np.random.default_rng(0)
        colours = np.zeros((2, 500, 3), np.uint8)
        text = figures.svg(
            figures.codebook_map(
                rng.normal(size=(2, 500, 2)),
                np.full((2, 2), 0.3),
                np.ones((2, 500)),
                colours,
            )
        )
        assert text.count(b"<image") == 2
        assert text.count(b"<use") < 200


class TestConfusion:
    @pytest.fixture
    def draw(self, pixels_of):
        def draw(counts):
            names = [f"P{i}" for i in range(len(counts))]
            return pixels_of(figures.confusion(np.array(counts), names))

        return draw

    def darkest(self, picture):
        """Return the centre of the darkest cell, relative to width and height."""
        height, width, _ = picture.shape
        rows, columns = np.nonzero((picture == (8, 48, 107)).all(axis=-1))
        # The colour bar at the right also contains this colour.
        is_cell = columns < 0.8 * width
        return columns[is_cell].mean() / width, rows[is_cell].mean() / height

    def test_rows_are_true_classes_from_the_top(self, draw):
        """Class 0 is always predicted as 2: the top row, right of the centre."""
        x, y = self.darkest(draw([[0, 0, 5, 0], *[[2, 2, 2, 2]] * 3]))
        assert 0.4 < x < 0.65
        assert 0.05 < y < 0.25

    def test_rows_are_normalized(self, draw):
        """The scale of a row does not matter, and an empty row is grey."""
        counts = np.array([[3, 1, 0], [0, 0, 0], [2, 0, 2]])
        once = draw(counts)
        np.testing.assert_array_equal(draw(counts * [[1], [5], [70]]), once)
        assert (draw(counts[:, [1, 0, 2]]) != once).any()
        assert (once == (226, 232, 240)).all(axis=-1).mean() > 0.05

    def test_names_are_not_parsed_as_formulas(self):
        """matplotlib parses text between two dollars, and fails for `$_$`."""
        figure = figures.confusion(np.eye(2, dtype=int), ["$_$", r"a\$b$c"])
        text = figures.svg(figure).decode()
        assert text.count("$_$") == 2

    def test_size_grows_with_the_number_of_classes(self, draw):
        few, some, many = (draw(np.eye(n, dtype=int)) for n in (2, 10, 41))
        assert few.shape == some.shape
        # Names of 8 points must fit below each other.
        assert len(many) / 144 > 41 * 8 * 1.2 / 72


class TestCurves:
    def curves(self, entries, stage="vqvae"):
        plots = figures.learning_curves(entries, stage)
        return {name: figures.svg(plot) for name, plot in plots.items()}

    def test_each_term_has_a_plot_of_one_stage_and_both_splits(self):
        """Entries of other stages are ignored."""
        stage = [entry for entry in ENTRIES if entry["stage"] == "vqvae"]
        expected = self.curves(ENTRIES)
        assert list(expected) == ["loss", "psnr_db", "perplexity", "gradient"]
        assert self.curves(stage) == expected
        train = [entry for entry in stage if entry["split"] == "train"]
        assert self.curves(train)["loss"] != expected["loss"]

    def test_loss_comes_first(self):
        entry = {"stage": "vqvae", "split": "train", "step": 1}
        entries = [entry | {"codebook": 1.0, "bits": 2.0, "loss": 3.0}]
        assert list(self.curves(entries)) == ["loss", "codebook", "bits"]

    def test_long_curves_are_subsampled_with_both_ends(self):
        entry = {"stage": "vqvae", "split": "train"}
        long = [entry | {"step": i, "loss": (7 * i) % 11} for i in range(1, 50_001)]
        assert len(self.curves(long)["loss"]) < 40_000
        axes = figures.learning_curves(long, "vqvae")["loss"].axes[0]
        steps = axes.lines[0].get_xdata()
        assert (steps[0], steps[-1], len(steps)) == (1, 50_000, 400)

    def test_single_point_is_visible(self, pixels_of):
        plot = figures.learning_curves(ENTRIES[:1], "vqvae")["loss"]
        plot.axes[0].get_legend().remove()
        colour = tuple(bytes.fromhex(figures.COLOURS[0][1:]))
        assert (pixels_of(plot) == colour).all(axis=2).any()
