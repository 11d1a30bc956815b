"""Plots of a run, as SVG that follows the theme of the page."""

import hashlib
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

# Stand-ins for matplotlib's types: its import takes seconds, so it is deferred.
Figure = Axes = Any

INK = "#4a5568"
COLOURS = ("#2b6cb0", "#c05621", "#2f855a", "#b83280", "#6b46c1", "#5f6b7a")
# Background of cells without a value.
_EMPTY = "#e2e8f0"
# Colour -> the variable of style.css that replaces it on the page.
VARIABLES = {
    INK: "soft",
    _EMPTY: "line",
    **{colour: f"series-{i}" for i, colour in enumerate(COLOURS, start=1)},
}
# Size of text in points. Figures are shown at about their size in inches.
TEXT = 9
# Codebooks on a map; more would be too small to read.
MAPPED = 4
# Points of a curve; more would not be visible.
_POINTS = 400
# Scatter plots with more markers than this are rasterized.
_SHAPES = 128
# Omit matplotlib's SVG metadata.
_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))


def learning_curves(
    entries: Sequence[Mapping[str, Any]], stage: str
) -> dict[str, Figure]:
    """Plot each logged term of a stage, train and validation; the loss comes first."""
    entries = [e for e in entries if e["stage"] == stage]
    skip = {"stage", "split", "step", "examples_per_second"}
    names = [n for n in dict.fromkeys(n for e in entries for n in e) if n not in skip]
    names.sort(key=lambda name: name != "loss")
    return {name: _curve(entries, name) for name in names}


def _curve(entries: Sequence[Mapping[str, Any]], name: str) -> Figure:
    figure = new_figure(3.2, 2.1)
    axes = _axes(figure)
    shown = set()
    for split, colour in zip(("train", "validation"), COLOURS, strict=False):
        points = [
            (e["step"], e[name]) for e in entries if e["split"] == split and name in e
        ]
        if points:
            kept = np.linspace(0, len(points) - 1, min(len(points), _POINTS))
            steps, values = np.array(points, float)[kept.round().astype(int)].T
            mark = "o" if len(steps) == 1 else ""
            axes.plot(steps, values, color=colour, label=split, marker=mark)
            shown |= set(steps.tolist())
    axes.locator_params(nbins=5)
    if len(shown) == 1:
        # There is no scale between equal steps.
        axes.set_xticks(list(shown), [f"{step:.0f}" for step in shown])
    axes.set_xlabel("step", color=INK, fontsize=TEXT)
    axes.legend(frameon=False, fontsize=TEXT, labelcolor=INK)
    return figure


def codebook_usage(counts: Float[np.ndarray, "G K"]) -> Figure:
    """Plot the usage of each code in descending order, one line per codebook."""
    figure = new_figure(4.0, 3.0)
    axes = _axes(figure)
    for row in counts:
        share = np.sort(row)[::-1] / max(row.sum(), 1.0)
        axes.fill_between(np.arange(1, len(row) + 1), share, step="mid", alpha=0.25)
        axes.step(np.arange(1, len(row) + 1), share, where="mid", linewidth=1)
    axes.set_xlabel("code, sorted by usage", color=INK, fontsize=TEXT)
    axes.set_ylabel("usage frequency", color=INK, fontsize=TEXT)
    axes.axhline(1 / counts.shape[1], color=INK, linewidth=0.8, linestyle=":")
    axes.set_xlim(1, max(2, counts.shape[1]))
    axes.set_ylim(bottom=0)
    return figure


def codebook_map(
    positions: Float[np.ndarray, "G K 2"],
    shares: Float[np.ndarray, "G 2"],
    counts: Float[np.ndarray, "G K"],
    colours: UInt8[np.ndarray, "G K 3"],
) -> Figure:
    """Plot the codes of the first `MAPPED` codebooks, with marker area by usage.

    Unused codes are crosses.

    Args:
      positions: coordinates of the codes.
      shares: fraction of the variance along each axis.
      counts: number of uses of each code.
      colours: RGB colours of the codes.
    """
    books = min(len(positions), MAPPED)
    columns = min(books, 2)
    rows = -(-books // columns)
    width = 4.0 if books == 1 else 2.6
    figure = new_figure(columns * width, rows * 0.75 * width)
    for book in range(books):
        axes = _axes(figure, rows, columns, book + 1)
        used = counts[book] > 0
        x, y = positions[book].T
        area = 12 + 140 * counts[book] / max(counts[book].max(), 1)
        axes.scatter(
            x[used],
            y[used],
            s=area[used] * (width / 4.0),
            c=colours[book][used] / 255,
            edgecolors=INK,
            linewidths=0.5,
            rasterized=positions[..., 0].size > _SHAPES,
        )
        axes.scatter(x[~used], y[~used], s=12, c=INK, marker="x", linewidths=0.8)
        axes.set_aspect("equal", "datalim")
        axes.set_xticks([])
        axes.set_yticks([])
        first, second = shares[book]
        axes.set_xlabel(f"PC 1 ({first:.0%} of variance)", color=INK, fontsize=TEXT)
        axes.set_ylabel(f"PC 2 ({second:.0%})", color=INK, fontsize=TEXT)
    return figure


def settings(
    measured: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]],
) -> Figure:
    """Plot metrics against option values: one column per option, one row per metric.

    Args:
      measured: option -> value -> metric -> one number per seed.
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
            for tick, numbers in enumerate(values.values()):
                points = numbers[name]
                axes.plot([tick] * len(points), points, "o", markersize=3, alpha=0.5)
            means = [
                np.mean(numbers[name]) if numbers[name] else np.nan
                for numbers in values.values()
            ]
            axes.plot(range(len(means)), means, color=INK, linewidth=1)
            axes.set_xticks(range(len(values)), map(plain, values), rotation=45)
            axes.set_xlim(-0.5, len(values) - 0.5)
        row[0].set_ylabel(name, color=INK, fontsize=TEXT)
    for axes, option in zip(grid[0], options, strict=True):
        axes.set_title(option.replace("_", " "), fontsize=9, color=INK)
    return figure


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of this size in inches."""
    import matplotlib.figure

    return matplotlib.figure.Figure(
        figsize=(width, height), dpi=144, layout="constrained"
    )


def style(axes: Axes) -> None:
    """Apply the common style of all plots to axes."""
    axes.set_prop_cycle(color=COLOURS)
    axes.set_facecolor("none")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=INK, labelsize=TEXT)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(INK)
    axes.grid(alpha=0.2)


def svg(figure: Figure) -> bytes:
    """Return a figure as SVG for inlining into a page.

    Colours become the CSS variables in `VARIABLES`, text stays text, and ids are unique
    to the figure.
    """
    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "page"}):
        figure.savefig(buffer, format="svg", facecolor="none", metadata=_NO_METADATA)
    text = buffer.getvalue().decode()
    text = text[text.index("<svg") :].strip()
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, f"var(--{variable})")
    return _with_unique_ids(text).encode()


def png(figure: Figure) -> bytes:
    """Return a figure as PNG on white, for pages without the report's style."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor="white")
    return buffer.getvalue()


def plain(text: str) -> str:
    """Escape dollars, which matplotlib would parse as a formula."""
    return text.replace("$", r"\$")


def _with_unique_ids(text: str) -> str:
    """Drop ids without references, and prefix the others with a hash of the figure."""
    used = set(re.findall(r'(?:url\(#|href="#)([^")]+)', text))
    prefix = hashlib.sha256(text.encode()).hexdigest()[:8]
    text = re.sub(
        r' id="([^"]*)"',
        lambda match: f' id="{prefix}-{match[1]}"' if match[1] in used else "",
        text,
    )
    return re.sub(r'(url\(#|href="#)', rf"\g<1>{prefix}-", text)


def confusion(counts: Int[np.ndarray, "P P"], names: Sequence[str]) -> Figure:
    """Plot a confusion matrix, normalized over each row.

    Rows without any count are grey.

    Args:
      counts: counts by true class (rows) and predicted class (columns).
      names: names of the P classes.
    """
    totals = counts.sum(axis=1, keepdims=True)
    fractions = np.where(totals > 0, counts / np.maximum(totals, 1), np.nan)
    side = 1.2 + 0.19 * max(len(names), 10)
    figure = new_figure(side + 0.7, side)
    axes = _axes(figure)
    axes.set_facecolor(_EMPTY)
    # The same range in every figure, so that figures are comparable.
    image = axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
    ticks = np.arange(len(names))
    axes.set_xticks(ticks, list(map(plain, names)), rotation=90)
    axes.set_yticks(ticks, list(map(plain, names)))
    # Draw grid lines between cells, not through them.
    axes.grid(visible=False)
    axes.set_xticks(ticks[1:] - 0.5, minor=True)
    axes.set_yticks(ticks[1:] - 0.5, minor=True)
    axes.grid(which="minor", color=INK, alpha=0.12, linewidth=0.5)
    axes.tick_params(which="both", length=0)
    axes.set_xlabel("predicted", color=INK)
    axes.set_ylabel("true", color=INK)
    bar = figure.colorbar(image, ax=axes, shrink=0.5, aspect=30, pad=0.02)
    bar.set_label("fraction of the true class", color=INK, fontsize=TEXT)
    bar.ax.tick_params(colors=INK, labelsize=TEXT)
    bar.outline.set_visible(False)
    return figure


def _axes(figure: Figure, *position: int) -> Axes:
    axes = figure.add_subplot(*position)
    style(axes)
    return axes
