"""Test images beside their codes, reconstructions and errors."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int, UInt8

from vqvae_jax import registry
from vqvae_jax.data.dataset import Dataset
from vqvae_jax.data.source import evenly_spaced, read_many, stack
from vqvae_jax.image_quality import psnr_db
from vqvae_jax.report import codebook, figures, image_grid
from vqvae_jax.report.page import Picture, Section

_SHOWN = 12


class Reconstructed(NamedTuple):
    """Images of the test split with their codes and reconstructions.

    originals: the images.
    names: class name of each image; "" without classes.
    codes: codes of each image; None for a model without codes.
    decoded: reconstruction of each image.
    """

    originals: UInt8[np.ndarray, "N H W C"]
    names: tuple[str, ...]
    codes: Int[np.ndarray, "N h w G"] | None
    decoded: UInt8[np.ndarray, "N H W C"]


def reconstruct(model: Any, params: Any, dataset: Dataset) -> Reconstructed:
    """Reconstruct images spread over the test split."""
    # The first images of a folder all belong to one class, because it is sorted.
    chosen = evenly_spaced(len(dataset.test), _SHOWN)
    examples = stack(read_many(dataset.test, chosen))
    originals = examples["image"]
    classes = dataset.class_names
    names = tuple(classes[i] if classes else "" for i in examples["label"])
    codes = None
    if model.traits.latent == "codes":
        codes = np.asarray(jax.jit(model.encode)(params, originals))
    decoded = np.asarray(jax.jit(model.reconstruct)(params, originals))
    return Reconstructed(originals, names, codes, decoded)


def reconstructions_section(
    shown: Reconstructed, colours: UInt8[np.ndarray, "G K 3"] | None
) -> Section:
    """Return a section with each image beside its codes and its reconstruction."""
    originals, names, codes, decoded = shown
    psnr = np.asarray(psnr_db(jnp.float32(originals), jnp.float32(decoded)))
    parts = "original, codes, reconstruction, error"
    if colours is None:
        parts = "original, reconstruction, error"
    cards = []
    for i, name in enumerate(names):
        pictures = [
            originals[i],
            decoded[i],
            image_grid.error_map(originals[i], decoded[i]),
        ]
        if colours is not None:
            pictures.insert(1, codebook.picture_of_codes(codes[i], colours))
        caption = f"{name} · {psnr[i]:.1f} dB".removeprefix(" · ")
        alt = f"Test image {i + 1}: {parts}"
        cards.append(Picture(image_grid.panels(pictures), alt, caption))
    text = (
        f"Images of the test split, from left to right: {parts}. The error of a pixel "
        f"is black at 0 and brightest at {image_grid.ERROR_SHOWN} of 255 or more."
    )
    if colours is not None and len(colours) > figures.MAPPED:
        text += f" Codes are those of the first {figures.MAPPED} codebooks."
    return Section("Reconstructions", text, cards=cards)


def reconstruction_sections(model: Any, params: Any, dataset: Dataset) -> list[Section]:
    """Return the sections of reconstructions and of their codes, if there are any."""
    shown = reconstruct(model, params, dataset)
    vectors = None if shown.codes is None else model.codebooks(params)
    if vectors is None:
        return [reconstructions_section(shown, None)]
    vectors = np.asarray(vectors)
    colours = codebook.colours(codebook.principal(vectors).places)
    books, num_codes = vectors.shape[:2]
    counts = np.stack(
        [
            np.bincount(shown.codes[..., g].ravel(), minlength=num_codes)
            for g in range(books)
        ]
    )
    decode = jax.jit(model.decode)
    of_codes = [
        registry.load(path)(
            lambda codes: np.asarray(decode(params, codes)),
            shown,
            vectors,
            counts,
            colours,
        )
        for path in filter(registry.is_available, registry.REPORT_SECTIONS)
    ]
    return [reconstructions_section(shown, colours), *of_codes]
