"""Test images, their codes, what the decoder makes of them, and how far it is off."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int, UInt8

from vqvae_jax.contrib.playground.playground import playground_section
from vqvae_jax.data.dataset import Dataset
from vqvae_jax.data.source import read_many, spread, stack
from vqvae_jax.image_quality import psnr_db
from vqvae_jax.report import codebook, image_grid
from vqvae_jax.report.page import Picture, Section

_SHOWN = 12


class Reconstructed(NamedTuple):
    """Images of the test split and what became of them.

    originals: `[N, H, W, C]`.
    names: N, of their classes; "" where there are none.
    codes: `[N, h, w, G]`; None for a model that has no codes.
    decoded: `[N, H, W, C]`.
    """

    originals: UInt8[np.ndarray, "N H W C"]
    names: tuple[str, ...]
    codes: Int[np.ndarray, "N h w G"] | None
    decoded: UInt8[np.ndarray, "N H W C"]


def reconstruct(model: Any, params: Any, dataset: Dataset) -> Reconstructed:
    """Reconstruct images from all over the test split."""
    # A folder is sorted by class: its first images would all be of one.
    chosen = spread(len(dataset.test), _SHOWN)
    examples = stack(read_many(dataset.test, chosen))
    originals = examples["image"]
    classes = dataset.class_names
    names = tuple(classes[i] if classes else "" for i in examples["label"])
    codes = None
    if hasattr(model, "num_codes"):
        codes = np.asarray(jax.jit(model.encode)(params, originals))
    decoded = np.asarray(jax.jit(model.reconstruct)(params, originals))
    return Reconstructed(originals, names, codes, decoded)


def reconstructions_section(
    shown: Reconstructed, colours: UInt8[np.ndarray, "G K 3"] | None
) -> Section:
    """Show each image beside its codes, in their colours, and its reconstruction."""
    originals, names, codes, decoded = shown
    psnr = np.asarray(psnr_db(jnp.float32(originals), jnp.float32(decoded)))
    parts = "original, codes, reconstruction, error"
    if codes is None:
        parts = "original, reconstruction, error"
    cards = []
    for i, name in enumerate(names):
        pictures = [
            originals[i],
            decoded[i],
            image_grid.error_map(originals[i], decoded[i]),
        ]
        if codes is not None:
            pictures.insert(1, codebook.picture_of_codes(codes[i], colours))
        caption = f"{name} · {psnr[i]:.1f} dB".removeprefix(" · ")
        alt = f"Test image {i + 1}: {parts}"
        cards.append(Picture(image_grid.panels(pictures), alt, caption))
    text = (
        f"Images of the test split, from left to right: {parts}. The error of a pixel "
        f"is black for 0 and brightest from {image_grid.ERROR_SHOWN} of 255 on."
    )
    return Section("Reconstructions", text, cards=cards)


def sections_of_codes(model: Any, params: Any, dataset: Dataset) -> list[Section]:
    """Return what is shown of a model that reconstructs, and changes where it can."""
    shown = reconstruct(model, params, dataset)
    if shown.codes is None:
        return [reconstructions_section(shown, None)]
    embeddings = codebook.embeddings_of(params)
    colours = codebook.colours(codebook.principal(embeddings).places)
    books, num_codes = embeddings.shape[:2]
    counts = np.stack(
        [
            np.bincount(shown.codes[..., g].ravel(), minlength=num_codes)
            for g in range(books)
        ]
    )
    decode = jax.jit(model.decode)
    # A picture of many different codes has more to play with.
    variety = [len(np.unique(codes)) for codes in shown.codes]
    playground = playground_section(
        lambda codes: np.asarray(decode(params, codes)),
        shown.codes[int(np.argmax(variety))],
        embeddings,
        counts,
        colours,
    )
    return [
        reconstructions_section(shown, colours),
        *([playground] if playground else []),
    ]
