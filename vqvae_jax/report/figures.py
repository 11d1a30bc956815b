"""Pictures of a run, as PNG bytes."""

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

INK = "#4a5568"
_COLOURS = ("#2b6cb0", "#dd6b20", "#2f855a", "#b83280", "#6b46c1", "#718096")
# Small images are enlarged by whole factors up to about this many pixels a side, and
# sixteen such fill a row.
_TILE = 64
_ROW = 16 * _TILE


def columns_for(image_shape: tuple[int, int, int]) -> int:
    """Return how many images a row of the page holds: 16 small ones, 8 of 128x128."""
    height, width, _ = image_shape
    return max(1, min(16, _ROW // (width * _enlargement(height, width))))


def image_grid(
    images: UInt8[np.ndarray, "N H W C"], *, columns: int, gap: int = 4
) -> bytes:
    """Lay images out in rows; pixels are enlarged by a whole factor, never smoothed."""
    return _grid_of_rows(_in_rows(images, columns), columns, gap)


def reconstructions(
    originals: UInt8[np.ndarray, "N H W C"],
    decoded: UInt8[np.ndarray, "N H W C"],
    *,
    columns: int,
    gap: int = 4,
) -> bytes:
    """Lay out rows of originals, each with the row of its reconstructions below."""
    pairs = zip(_in_rows(originals, columns), _in_rows(decoded, columns), strict=True)
    return _grid_of_rows([row for pair in pairs for row in pair], columns, gap)


def learning_curves(entries: Sequence[Mapping[str, Any]], stage: str) -> bytes:
    """Plot the terms that a stage logged, on train and validation."""
    entries = [e for e in entries if e["stage"] == stage]
    skip = {"stage", "split", "step", "examples_per_second"}
    names = [n for n in dict.fromkeys(n for e in entries for n in e) if n not in skip]
    columns = min(3, len(names))
    rows = math.ceil(len(names) / columns)
    figure = new_figure(3.4 * columns, 2.3 * rows)
    for place, name in enumerate(names, start=1):
        axes = _axes(figure, rows, columns, place)
        for split, colour in zip(("train", "validation"), _COLOURS, strict=False):
            points = [
                (e["step"], e[name])
                for e in entries
                if e["split"] == split and name in e
            ]
            if points:
                axes.plot(*zip(*points, strict=True), color=colour, label=split)
        axes.set_title(name.replace("_", " "), fontsize=10, color=INK)
        if place == 1:
            axes.legend(frameon=False, fontsize=8, labelcolor=INK)
    return rendered(figure)


def codebook_usage(counts: Float[np.ndarray, "G K"]) -> bytes:
    """Plot how often each code is used, most used first, a line a codebook."""
    figure = new_figure(7.0, 2.6)
    axes = _axes(figure)
    for row in counts:
        share = np.sort(row)[::-1] / max(row.sum(), 1.0)
        axes.fill_between(np.arange(1, len(row) + 1), share, step="mid", alpha=0.25)
        axes.step(np.arange(1, len(row) + 1), share, where="mid", linewidth=1)
    axes.set_xlabel("codes, most used first", color=INK)
    axes.set_ylabel("share of all codes", color=INK)
    axes.axhline(1 / counts.shape[1], color=INK, linewidth=0.8, linestyle=":")
    axes.set_xlim(1, max(2, counts.shape[1]))
    axes.set_ylim(bottom=0)
    return rendered(figure)


def settings(
    measured: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]],
) -> bytes:
    """Plot figures over the values of options: a column an option, a row a figure.

    Args:
      measured: option -> value -> figure -> a number for each seed.
    """
    options = list(measured)
    names = list(next(iter(next(iter(measured.values())).values())))
    sizes = [len(values) for values in measured.values()]
    figure = new_figure(1.2 + 0.62 * sum(sizes), 1.9 * len(names))
    grid = figure.subplots(
        len(names),
        len(options),
        sharey="row",
        squeeze=False,
        gridspec_kw={"width_ratios": sizes},
    )
    for row, name in zip(grid, names, strict=True):
        for axes, option in zip(row, options, strict=True):
            style(axes)
            values = measured[option]
            for place, numbers in enumerate(values.values()):
                points = numbers[name]
                axes.plot([place] * len(points), points, "o", markersize=3, alpha=0.5)
            means = [
                np.mean(numbers[name]) if numbers[name] else np.nan
                for numbers in values.values()
            ]
            axes.plot(range(len(means)), means, color=INK, linewidth=1)
            axes.set_xticks(range(len(values)), list(values), rotation=45)
            axes.set_xlim(-0.5, len(values) - 0.5)
        row[0].set_ylabel(name, color=INK, fontsize=8)
    for axes, option in zip(grid[0], options, strict=True):
        axes.set_title(option.replace("_", " "), fontsize=9, color=INK)
    return rendered(figure)


def new_figure(width: float, height: float) -> Any:
    """Make a figure of so many inches."""
    # Here: the import takes seconds, which a run spends when it comes to its figures.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=144, layout="constrained")


def style(axes: Any) -> None:
    """Give axes the look of all plots of a page."""
    axes.set_prop_cycle(color=_COLOURS)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=INK, labelsize=8)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(INK)
    axes.grid(alpha=0.2)


def rendered(figure: Any) -> bytes:
    """Return a figure as a PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor="white")
    return buffer.getvalue()


def confusion(counts: Int[np.ndarray, "P P"], names: Sequence[str]) -> bytes:
    """Show which classes are taken for which, as parts of all of the true class.

    A class that has none is grey.

    Args:
      counts: by true class, a row each, and by the class that it was taken for.
      names: of the P classes.
    """
    totals = counts.sum(axis=1, keepdims=True)
    parts = np.where(totals > 0, counts / np.maximum(totals, 1), np.nan)
    side = 1.2 + 0.19 * max(len(names), 10)
    figure = new_figure(side + 0.7, side)
    axes = _axes(figure)
    axes.set_facecolor("#e2e8f0")
    # From 0 to 1 in all figures, so that two of them can be compared.
    image = axes.imshow(parts, cmap="Blues", vmin=0, vmax=1)
    places = np.arange(len(names))
    axes.set_xticks(places, names, rotation=90)
    axes.set_yticks(places, names)
    # Lines between the cells, none through them.
    axes.grid(visible=False)
    axes.set_xticks(places[1:] - 0.5, minor=True)
    axes.set_yticks(places[1:] - 0.5, minor=True)
    axes.grid(which="minor", color=INK, alpha=0.12, linewidth=0.5)
    axes.tick_params(which="both", length=0)
    axes.set_xlabel("taken for", color=INK)
    axes.set_ylabel("true", color=INK)
    bar = figure.colorbar(image, ax=axes, shrink=0.5, aspect=30, pad=0.02)
    bar.set_label("part of the row", color=INK, fontsize=8)
    bar.ax.tick_params(colors=INK, labelsize=8)
    bar.outline.set_visible(False)
    return rendered(figure)


def _enlargement(height: int, width: int) -> int:
    return max(1, _TILE // max(height, width))


def _in_rows(images: np.ndarray, columns: int) -> list[np.ndarray]:
    return [images[i : i + columns] for i in range(0, len(images), columns)]


def _grid_of_rows(rows: Sequence[np.ndarray], columns: int, gap: int) -> bytes:
    """Lay out rows of up to `columns` images; what is not an image is transparent."""
    _, height, width, channels = rows[0].shape
    factor = _enlargement(height, width)
    height, width = height * factor, width * factor
    canvas = np.zeros(
        (len(rows) * (height + gap) - gap, columns * (width + gap) - gap, 4), np.uint8
    )
    for i, row in enumerate(rows):
        enlarged = row.repeat(factor, axis=1).repeat(factor, axis=2)
        for j, image in enumerate(enlarged):
            top, left = i * (height + gap), j * (width + gap)
            tile = canvas[top : top + height, left : left + width]
            tile[..., :3] = image if channels == 3 else image[..., :1]
            tile[..., 3] = 255
    return _png(Image.fromarray(canvas, "RGBA"))


def _axes(figure: Any, *place: int) -> Any:
    axes = figure.add_subplot(*place)
    style(axes)
    return axes


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
