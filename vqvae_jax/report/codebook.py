"""Colours and a map of a model's codes, in which similar codes look similar."""

import math
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

from vqvae_jax.data.codes import count_codes
from vqvae_jax.report import figures
from vqvae_jax.report.page import Picture, Section
from vqvae_jax.workdir import Workdir

# Gap between the grids of different codebooks, in cells.
_GAP = 1


class Principal(NamedTuple):
    """Codebooks projected on their first three principal components.

    places: coordinates of each embedding.
    shares: fraction of the codebook's variance along each component.
    """

    places: Float[np.ndarray, "G K 3"]
    shares: Float[np.ndarray, "G 3"]


def principal(embeddings: Float[np.ndarray, "G K D"]) -> Principal:
    """Project each codebook on its principal components, zero-padded to three."""
    centred = embeddings - embeddings.mean(axis=1, keepdims=True)
    # At most min(K, D) components, largest variance first.
    left, scales, _ = np.linalg.svd(centred.astype(np.float64), full_matrices=False)
    missing = max(0, 3 - scales.shape[1])
    places = np.pad(left * scales[:, None], ((0, 0), (0, 0), (0, missing)))[..., :3]
    variances = np.square(np.pad(scales, ((0, 0), (0, missing))))
    totals = variances.sum(axis=1, keepdims=True)
    shares = variances[:, :3] / np.where(totals > 0, totals, 1.0)
    return Principal(places, shares)


def colours(places: Float[np.ndarray, "G K 3"]) -> UInt8[np.ndarray, "G K 3"]:
    """Return a colour for each code; similar codes get similar colours.

    In the plane of the first two components, hue is the angle around the median and
    saturation grows with the distance from it. Brightness grows along the third.
    """
    # Importing matplotlib takes seconds, so defer it.
    import matplotlib.colors

    x, y, z = np.moveaxis(places - np.median(places, axis=1, keepdims=True), -1, 0)
    hue = np.arctan2(y, x) / (2 * math.pi) % 1.0
    saturation = 0.35 + 0.5 * _ranks(np.hypot(x, y))
    brightness = 0.5 + 0.45 * _ranks(z)
    hsv = np.stack([hue, saturation, brightness], axis=-1)
    rgb = matplotlib.colors.hsv_to_rgb(hsv)
    return np.round(255 * rgb).astype(np.uint8)


def picture_of_codes(
    codes: Int[np.ndarray, "h w G"], colours: UInt8[np.ndarray, "G K 3"]
) -> UInt8[np.ndarray, "H W C"]:
    """Draw a grid of codes with one pixel per code.

    Returns RGB for one codebook. The grids of the first codebooks of several are tiled,
    separated by transparent gaps, in RGBA; more than four would be too small.
    """
    height, width, books = codes.shape
    books = min(books, figures.MAPPED)
    grids = np.stack([colours[g][codes[..., g]] for g in range(books)])
    if books == 1:
        return grids[0]
    columns = math.ceil(math.sqrt(books))
    rows = -(-books // columns)
    canvas = np.zeros(
        (rows * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP, 4), np.uint8
    )
    for book, grid in enumerate(grids):
        row, column = divmod(book, columns)
        top, left = row * (height + _GAP), column * (width + _GAP)
        tile = canvas[top : top + height, left : left + width]
        tile[..., :3], tile[..., 3] = grid, 255
    return canvas


def codebook_sections(workdir: Workdir, model: Any, params: Any) -> list[Section]:
    """Return the section with the code usage on the test split and the code map.

    Empty for a quantizer without code embeddings.
    """
    embeddings = model.codebooks(params)
    if embeddings is None:
        return []
    embeddings = np.asarray(embeddings)
    counts = count_codes(workdir.codes("test"), num_codes=embeddings.shape[1])
    places, shares = principal(embeddings)
    plot = figures.codebook_map(places[..., :2], shares[:, :2], counts, colours(places))
    active = np.count_nonzero(counts)
    books = len(embeddings)
    which = (
        f" of the first {figures.MAPPED} codebooks" if books > figures.MAPPED else ""
    )
    pictures = [
        Picture(
            figures.svg(figures.codebook_usage(counts)),
            f"Code usage in descending order: {active} of {counts.size} codes in use",
            "Usage frequency of each code on the test split. Dotted line: uniform "
            "usage.",
        ),
        Picture(
            figures.svg(plot),
            "Codebook embeddings on their first two principal components",
            f"Embeddings{which} projected on their first two principal components. "
            "Larger markers: used more often. Crosses: unused codes.",
        ),
    ]
    text = (
        "The codes of the test split and their embeddings. Codes with similar "
        "embeddings have similar colours throughout this page."
    )
    return [Section("Codebook", text, cards=pictures)]


def _ranks(values: Float[np.ndarray, "G K"]) -> Float[np.ndarray, "G K"]:
    """Return the rank of each value within its row, scaled to [0, 1]."""
    order = values.argsort(axis=1).argsort(axis=1)
    return order / max(1, values.shape[1] - 1)
