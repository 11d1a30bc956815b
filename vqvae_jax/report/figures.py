"""Pictures of a run, as PNG bytes."""

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Float, Int, UInt8
from matplotlib.figure import Figure
from PIL import Image

_INK = "#4a5568"
_COLOURS = ("#2b6cb0", "#dd6b20", "#2f855a", "#b83280", "#6b46c1", "#718096")
# Small images are enlarged by whole factors up to about this many pixels a side.
_TILE = 64


def image_grid(
    images: UInt8[np.ndarray, "N H W C"], *, columns: int, gap: int = 4
) -> bytes:
    """Lay images out in rows; pixels are enlarged by a whole factor, never smoothed."""
    count, height, width, channels = images.shape
    factor = max(1, _TILE // max(height, width))
    images = images.repeat(factor, axis=1).repeat(factor, axis=2)
    height, width = height * factor, width * factor
    rows = math.ceil(count / columns)
    canvas = np.zeros(
        (rows * (height + gap) - gap, columns * (width + gap) - gap, 4), np.uint8
    )
    for i, image in enumerate(images):
        top, left = (i // columns) * (height + gap), (i % columns) * (width + gap)
        tile = canvas[top : top + height, left : left + width]
        tile[..., :3] = image if channels == 3 else image[..., :1]
        tile[..., 3] = 255
    return _png(Image.fromarray(canvas, "RGBA"))


def reconstructions(
    originals: UInt8[np.ndarray, "N H W C"],
    decoded: UInt8[np.ndarray, "N H W C"],
    *,
    columns: int,
) -> bytes:
    """Lay out rows of originals, each with the row of its reconstructions below."""
    rows = [
        part[i : i + columns]
        for i in range(0, len(originals), columns)
        for part in (originals, decoded)
    ]
    return image_grid(np.concatenate(rows), columns=columns)


def samples_of_class(
    images: UInt8[np.ndarray, "N H W C"],
    labels: Int[np.ndarray, " N"],
    label: int,
    *,
    count: int,
) -> bytes:
    """Lay out a row of the first samples of a class."""
    return image_grid(images[labels == label][:count], columns=count)


def learning_curves(entries: Sequence[Mapping[str, Any]], stage: str) -> bytes:
    """Plot the terms that a stage logged, on train and validation."""
    entries = [e for e in entries if e["stage"] == stage]
    skip = {"stage", "split", "step", "examples_per_second"}
    names = [n for n in entries[0] if n not in skip]
    columns = min(3, len(names))
    rows = math.ceil(len(names) / columns)
    figure = _figure(3.4 * columns, 2.3 * rows)
    for place, name in enumerate(names, start=1):
        axes = figure.add_subplot(rows, columns, place)
        for split, colour in zip(("train", "validation"), _COLOURS, strict=False):
            points = [
                (e["step"], e[name])
                for e in entries
                if e["split"] == split and name in e
            ]
            if points:
                axes.plot(*zip(*points, strict=True), color=colour, label=split)
        axes.set_title(name.replace("_", " "), fontsize=10, color=_INK)
        _plain(axes)
        if place == 1:
            axes.legend(frameon=False, fontsize=8, labelcolor=_INK)
    return _rendered(figure)


def codebook_usage(counts: Float[np.ndarray, "G K"]) -> bytes:
    """Plot how often each code is used, most used first, a line a codebook."""
    figure = _figure(7.0, 2.6)
    axes = figure.add_subplot()
    for row in counts:
        share = np.sort(row)[::-1] / max(row.sum(), 1.0)
        axes.fill_between(np.arange(1, len(row) + 1), share, step="mid", alpha=0.25)
        axes.step(np.arange(1, len(row) + 1), share, where="mid", linewidth=1)
    axes.set_xlabel("codes, most used first", color=_INK)
    axes.set_ylabel("share of all codes", color=_INK)
    axes.axhline(1 / counts.shape[1], color=_INK, linewidth=0.8, linestyle=":")
    axes.set_xlim(1, max(2, counts.shape[1]))
    axes.set_ylim(bottom=0)
    _plain(axes)
    return _rendered(figure)


def _figure(width: float, height: float) -> Figure:
    matplotlib.rcParams["axes.prop_cycle"] = matplotlib.cycler(color=_COLOURS)
    return Figure(figsize=(width, height), dpi=144, layout="constrained")


def _plain(axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=_INK, labelsize=8)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(_INK)
    axes.grid(alpha=0.2)


def _rendered(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor="white")
    return buffer.getvalue()


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
