"""Codes as colours and as places on a map, so that similar ones look alike."""

import math
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

from vqvae_jax.pipeline.code_usage import count_codes
from vqvae_jax.report import figures
from vqvae_jax.report.page import Picture, Section
from vqvae_jax.workdir import Workdir

# Between the codebooks of a picture of codes, in cells.
_GAP = 1


class Principal(NamedTuple):
    """Codebooks along their principal axes.

    places: `[G, K, 3]`, each embedding on the three axes of the largest variance.
    shares: `[G, 3]`, the part of the codebook's variance along each axis.
    """

    places: Float[np.ndarray, "G K 3"]
    shares: Float[np.ndarray, "G 3"]


def embeddings_of(params: Any) -> Float[np.ndarray, "G K D"]:
    """Return the vectors that a model's codes stand for, whatever trained them."""
    # VIMCO has tables instead of a codebook.
    tables = params.tables if hasattr(params, "tables") else params.codebook.embeddings
    return np.asarray(tables)


def principal(embeddings: Float[np.ndarray, "G K D"]) -> Principal:
    """Project each codebook on its principal axes; those it has not got are 0."""
    centred = embeddings - embeddings.mean(axis=1, keepdims=True)
    # The largest variance first, of at most min(K, D) axes.
    left, scales, _ = np.linalg.svd(centred.astype(np.float64), full_matrices=False)
    missing = max(0, 3 - scales.shape[1])
    places = np.pad(left * scales[:, None], ((0, 0), (0, 0), (0, missing)))[..., :3]
    variances = np.square(np.pad(scales, ((0, 0), (0, missing))))
    totals = variances.sum(axis=1, keepdims=True)
    shares = variances[:, :3] / np.where(totals > 0, totals, 1.0)
    return Principal(places, shares)


def colours(places: Float[np.ndarray, "G K 3"]) -> UInt8[np.ndarray, "G K 3"]:
    """Return a colour for each code: near codes have near colours.

    The hue goes around the map, colours are stronger away from its middle, and the
    third axis makes them lighter.
    """
    # Its import takes seconds, which a run spends when it comes to its figures.
    import matplotlib.colors

    x, y, z = np.moveaxis(places - np.median(places, axis=1, keepdims=True), -1, 0)
    hue = np.arctan2(y, x) / (2 * math.pi) % 1.0
    strength = 0.35 + 0.5 * _ranks(np.hypot(x, y))
    light = 0.5 + 0.45 * _ranks(z)
    rgb = matplotlib.colors.hsv_to_rgb(np.stack([hue, strength, light], axis=-1))
    return np.round(255 * rgb).astype(np.uint8)


def picture_of_codes(
    codes: Int[np.ndarray, "h w G"], colours: UInt8[np.ndarray, "G K 3"]
) -> UInt8[np.ndarray, "H W C"]:
    """Show a grid of codes, a pixel a code; that of each codebook beside the others.

    RGBA, where what is between several codebooks is transparent; else RGB.
    """
    height, width, books = codes.shape
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


def codebook_section(workdir: Workdir, params: Any) -> Section:
    """Show how often each code is used on the test split, and where codes lie."""
    embeddings = embeddings_of(params)
    counts = count_codes(workdir.codes("test"), num_codes=embeddings.shape[1])
    places, shares = principal(embeddings)
    plot = figures.codebook_map(places[..., :2], shares[:, :2], counts, colours(places))
    active = np.count_nonzero(counts)
    pictures = [
        Picture(
            figures.svg(figures.codebook_usage(counts)),
            f"Share of each code, most used first: {active} of {counts.size} occur",
            "How often each code occurs in the test split. Dotted: even use.",
        ),
        Picture(
            figures.svg(plot),
            "Map of the embeddings on their two principal axes",
            "Where the codes lie: their embeddings on the two axes of the largest "
            "variance. Larger: used more. Crosses: never used.",
        ),
    ]
    text = "Near codes have near colours, here and in all pictures of codes."
    return Section("Codebook", text, cards=pictures)


def _ranks(values: Float[np.ndarray, "G K"]) -> Float[np.ndarray, "G K"]:
    """Return the place of each value among its row's, from 0 to 1."""
    order = values.argsort(axis=1).argsort(axis=1)
    return order / max(1, values.shape[1] - 1)
