"""How near one image is to another: PSNR and SSIM of each, on values 0 ... 255."""

import dm_pix
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from vqvae_jax.runtime.errors import require

# The window of Wang et al.: a Gaussian of 11 x 11 pixels.
SSIM_WINDOW = 11
_SSIM_SIGMA = 1.5


def psnr_db(
    images: Shaped[Array, "B H W C"], others: Shaped[Array, "B H W C"]
) -> Float[Array, " B"]:
    """Return the peak signal-to-noise ratio in dB; equal images have 148 dB."""
    # The difference of two uint8 would wrap around.
    errors = images.astype(jnp.float32) - others.astype(jnp.float32)
    mse = jnp.square(errors).mean(axis=(1, 2, 3))
    return 10 * jnp.log10(255.0**2 / jnp.maximum(mse, 1e-10))


def ssim(
    images: Shaped[Array, "B H W C"], others: Shaped[Array, "B H W C"]
) -> Float[Array, " B"]:
    """Return the structural similarity, at most 1, averaged over the channels.

    Only windows inside the image count. Wang, Bovik, Sheikh and Simoncelli, *Image
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
