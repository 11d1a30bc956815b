"""Plots of a run, and their way into a page whose theme they follow."""

import hashlib
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

# Those of matplotlib, whose import takes seconds: a run spends them at its figures.
Figure = Axes = Any

INK = "#4a5568"
COLOURS = ("#2b6cb0", "#c05621", "#2f855a", "#b83280", "#6b46c1", "#5f6b7a")
# Behind cells that have no value.
_NOTHING = "#e2e8f0"
# The variables of style.css that take the place of colours in a page.
VARIABLES = {
    INK: "soft",
    _NOTHING: "line",
    **{colour: f"series-{i}" for i, colour in enumerate(COLOURS, start=1)},
}
# A line of more points is no longer to be told from one of these.
_POINTS = 400
# More marks than this are a picture, not a shape each.
_SHAPES = 128
# Of matplotlib, and none of it is for readers.
_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))


def learning_curves(
    entries: Sequence[Mapping[str, Any]], stage: str
) -> dict[str, Figure]:
    """Plot each term that a stage logged, on train and validation; the loss first."""
    entries = [e for e in entries if e["stage"] == stage]
    skip = {"stage", "split", "step", "examples_per_second"}
    names = [n for n in dict.fromkeys(n for e in entries for n in e) if n not in skip]
    names.sort(key=lambda name: name != "loss")
    return {name: _curve(entries, name) for name in names}


def _curve(entries: Sequence[Mapping[str, Any]], name: str) -> Figure:
    figure = new_figure(3.6, 2.1)
    axes = _axes(figure)
    for split, colour in zip(("train", "validation"), COLOURS, strict=False):
        points = [
            (e["step"], e[name]) for e in entries if e["split"] == split and name in e
        ]
        if points:
            kept = np.linspace(0, len(points) - 1, min(len(points), _POINTS))
            steps, values = np.array(points, float)[kept.round().astype(int)].T
            mark = "o" if len(steps) == 1 else ""
            axes.plot(steps, values, color=colour, label=split, marker=mark)
    axes.locator_params(nbins=5)
    axes.set_xlabel("step", color=INK, fontsize=8)
    axes.legend(frameon=False, fontsize=8, labelcolor=INK)
    return figure


def codebook_usage(counts: Float[np.ndarray, "G K"]) -> Figure:
    """Plot how often each code is used, most used first, a line a codebook."""
    figure = new_figure(4.0, 3.0)
    axes = _axes(figure)
    for row in counts:
        share = np.sort(row)[::-1] / max(row.sum(), 1.0)
        axes.fill_between(np.arange(1, len(row) + 1), share, step="mid", alpha=0.25)
        axes.step(np.arange(1, len(row) + 1), share, where="mid", linewidth=1)
    axes.set_xlabel("codes, most used first", color=INK, fontsize=8)
    axes.set_ylabel("share of all codes", color=INK, fontsize=8)
    axes.axhline(1 / counts.shape[1], color=INK, linewidth=0.8, linestyle=":")
    axes.set_xlim(1, max(2, counts.shape[1]))
    axes.set_ylim(bottom=0)
    return figure


def codebook_map(
    places: Float[np.ndarray, "G K 2"],
    shares: Float[np.ndarray, "G 2"],
    counts: Float[np.ndarray, "G K"],
    colours: UInt8[np.ndarray, "G K 3"],
) -> Figure:
    """Plot where the codes of each codebook lie, larger where they are used more.

    Codes that are never used are crosses.

    Args:
      places: of the codes on the two axes.
      shares: of the variance that is along each axis.
      counts: how often each code is used.
      colours: of the codes.
    """
    books = len(places)
    columns = min(books, 4)
    rows = -(-books // columns)
    width = 4.0 if books == 1 else 1.6
    figure = new_figure(columns * width, rows * 0.75 * width)
    for book in range(books):
        axes = _axes(figure, rows, columns, book + 1)
        used = counts[book] > 0
        x, y = places[book].T
        area = 12 + 140 * counts[book] / max(counts[book].max(), 1)
        axes.scatter(
            x[used],
            y[used],
            s=area[used] * (width / 4.0),
            c=colours[book][used] / 255,
            edgecolors=INK,
            linewidths=0.5,
            rasterized=places[..., 0].size > _SHAPES,
        )
        axes.scatter(x[~used], y[~used], s=12, c=INK, marker="x", linewidths=0.8)
        axes.set_aspect("equal", "datalim")
        axes.set_xticks([])
        axes.set_yticks([])
        first, second = shares[book]
        axes.set_xlabel(f"{first:.0%} of the variance", color=INK, fontsize=8)
        axes.set_ylabel(f"{second:.0%}", color=INK, fontsize=8)
    return figure


def settings(
    measured: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]],
) -> Figure:
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
            axes.set_xticks(range(len(values)), map(plain, values), rotation=45)
            axes.set_xlim(-0.5, len(values) - 0.5)
        row[0].set_ylabel(name, color=INK, fontsize=8)
    for axes, option in zip(grid[0], options, strict=True):
        axes.set_title(option.replace("_", " "), fontsize=9, color=INK)
    return figure


def new_figure(width: float, height: float) -> Figure:
    """Make a figure of so many inches."""
    import matplotlib.figure

    return matplotlib.figure.Figure(
        figsize=(width, height), dpi=144, layout="constrained"
    )


def style(axes: Axes) -> None:
    """Give axes the look of all plots of a page."""
    axes.set_prop_cycle(color=COLOURS)
    axes.set_facecolor("none")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=INK, labelsize=8)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(INK)
    axes.grid(alpha=0.2)


def svg(figure: Figure) -> bytes:
    """Return a figure as SVG to stand inside a page, in the colours of its theme.

    `VARIABLES` says which; text stays text, and ids are those of no other figure.
    """
    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "page"}):
        figure.savefig(buffer, format="svg", facecolor="none", metadata=_NO_METADATA)
    text = buffer.getvalue().decode()
    text = text[text.index("<svg") :].strip()
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, f"var(--{variable})")
    return _with_own_ids(text).encode()


def plain(text: str) -> str:
    """Return text that matplotlib shows as it is: two dollars are no formula."""
    return text.replace("$", r"\$")


def _with_own_ids(text: str) -> str:
    """Keep the ids that something refers to, and make them this figure's own."""
    used = set(re.findall(r'(?:url\(#|href="#)([^")]+)', text))
    own = hashlib.sha256(text.encode()).hexdigest()[:8]
    text = re.sub(
        r' id="([^"]*)"',
        lambda found: f' id="{own}-{found[1]}"' if found[1] in used else "",
        text,
    )
    return re.sub(r'(url\(#|href="#)', rf"\g<1>{own}-", text)


def confusion(counts: Int[np.ndarray, "P P"], names: Sequence[str]) -> Figure:
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
    axes.set_facecolor(_NOTHING)
    # From 0 to 1 in all figures, so that two of them can be compared.
    image = axes.imshow(parts, cmap="Blues", vmin=0, vmax=1)
    places = np.arange(len(names))
    axes.set_xticks(places, list(map(plain, names)), rotation=90)
    axes.set_yticks(places, list(map(plain, names)))
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
    return figure


def _axes(figure: Figure, *place: int) -> Axes:
    axes = figure.add_subplot(*place)
    style(axes)
    return axes
