"""Similarity of pairs of images with values 0 ... 255: PSNR and SSIM."""

from collections.abc import Callable
from typing import NamedTuple

import dm_pix
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from vqvae_jax.runtime.errors import require

# Wang et al. use a Gaussian window of 11 x 11 pixels.
SSIM_WINDOW = 11
_SSIM_SIGMA = 1.5


def psnr_db(
    images: Shaped[Array, "B H W C"], others: Shaped[Array, "B H W C"]
) -> Float[Array, " B"]:
    """Return the peak signal-to-noise ratio in dB, 148 dB for equal images."""
    # Differences of uint8 would wrap around.
    errors = images.astype(jnp.float32) - others.astype(jnp.float32)
    mse = jnp.square(errors).mean(axis=(1, 2, 3))
    return 10 * jnp.log10(255.0**2 / jnp.maximum(mse, 1e-10))


def ssim(
    images: Shaped[Array, "B H W C"], others: Shaped[Array, "B H W C"]
) -> Float[Array, " B"]:
    """Return the structural similarity, at most 1, averaged over the channels.

    Use only windows inside the image. Wang, Bovik, Sheikh and Simoncelli, *Image
    quality assessment: from error visibility to structural similarity*, 2004,
    equation 13, with a Gaussian window of sigma 1.5.

    Raises:
      UserError: a side is shorter than the window.
    """
    require(
        min(images.shape[1:3]) >= SSIM_WINDOW,
        f"SSIM needs images of at least {SSIM_WINDOW}x{SSIM_WINDOW}, got "
        f"{images.shape[1]}x{images.shape[2]}",
    )
    return dm_pix.ssim(
        images / 255,
        others / 255,
        filter_size=SSIM_WINDOW,
        filter_sigma=_SSIM_SIGMA,
    )


class Measure(NamedTuple):
    """How similar reconstructions are to the images.

    compare: from `[B, H, W, C]` images and means of p(x|z) to `[B]`.
    smallest_side: of the images that it accepts.
    """

    compare: Callable[..., Float[Array, " B"]]
    smallest_side: int = 1


# Every model that reconstructs reports these, under names with their units. SSIM is
# that of the image rounded to 256 values.
MEASURES: dict[str, Measure] = {
    "psnr_db": Measure(psnr_db),
    "ssim": Measure(lambda images, means: ssim(images, jnp.round(means)), SSIM_WINDOW),
}
