"""Sharpness of images: gradient magnitude and power at high frequencies.

`sharpness_ratios` compares both with those of real images of the same size. A ratio
below 1 means blur. Noise and checkerboards count as sharp, so a ratio near 1 indicates
quality only for samples that also look right.
"""

import numpy as np
from jaxtyping import Float, UInt8

from vqvae_jax.runtime.errors import require

# In cycles per pixel: half of the Nyquist frequency, 1/2.
_CUTOFF = 0.25


def gradient_magnitude(
    images: UInt8[np.ndarray, "N H W C"],
) -> Float[np.ndarray, " N"]:
    """Return the mean length of an image's gradient, in grey levels per pixel.

    The gradient of a channel at (i, j) is (x[i+1, j] - x[i, j], x[i, j+1] - x[i, j]);
    its length is averaged over channels and over the (H - 1) (W - 1) pixels at which
    both differences exist.

    Raises:
      UserError: a side is below 2.
    """
    require(
        min(images.shape[1:3]) >= 2,
        f"a gradient needs images of at least 2x2, got {images.shape}",
    )

    def lengths(x):
        corner = x[:, :-1, :-1]
        return np.hypot(x[:, 1:, :-1] - corner, x[:, :-1, 1:] - corner)

    return _image_means(lengths, images)


def high_frequency_power(
    images: UInt8[np.ndarray, "N H W C"],
) -> Float[np.ndarray, " N"]:
    """Return the power above half of the Nyquist frequency, in squared grey levels.

    A channel's variance over its pixels is the sum of |X[k, l]|² / (H W) over all
    (k, l) except (0, 0), where X is the orthonormal DCT-II. This function returns the
    part of that sum with frequencies sqrt((k / 2H)² + (l / 2W)²) above 1/4 cycles per
    pixel, averaged over channels. A wave a cos(2 pi f x) contributes a² / 2 if f is
    above that cutoff and nothing otherwise.

    A DFT would count the jump between opposite borders as sharpness: for 32x32
    photographs blurred by a Gaussian of one pixel it reports 13 % of the original
    power, the DCT 2 %.
    """
    height, width = images.shape[1:3]
    rows, columns = _dct(height), _dct(width)
    frequency = np.hypot(
        np.arange(height)[:, None] / (2 * height),
        np.arange(width)[None] / (2 * width),
    )
    is_high = (frequency > _CUTOFF)[None, :, :, None]

    def power(x):
        x = np.moveaxis(x, 3, 1)
        spectrum = np.moveaxis(rows @ x @ columns.T, 1, 3)
        # The mean over all H W coefficients is the sum / (H W).
        return np.square(spectrum) * is_high

    return _image_means(power, images)


def sharpness_ratios(
    samples: UInt8[np.ndarray, "N H W C"], real: UInt8[np.ndarray, "M h w c"]
) -> dict[str, float]:
    """Return the mean of each measure over samples, relative to real images.

    At 1 samples are as sharp as the real images; below 1 they are blurrier.

    Raises:
      UserError: samples and real images differ in size, or the real images are flat.
    """
    require(
        samples.shape[1:] == real.shape[1:],
        f"samples {samples.shape[1:]} and real images {real.shape[1:]} must have the "
        "same size",
    )
    measures = {
        "gradient_magnitude_ratio": gradient_magnitude,
        "high_frequency_power_ratio": high_frequency_power,
    }
    ratios = {}
    for name, measure in measures.items():
        reference = float(measure(real).mean())
        require(
            reference > 0,
            f"{name}: the real images are all flat, so there is no reference sharpness",
        )
        ratios[name] = float(measure(samples).mean()) / reference
    return ratios


def _dct(size: int) -> Float[np.ndarray, "K N"]:
    """Return the orthonormal DCT-II as a matrix."""
    k, n = np.arange(size)[:, None], np.arange(size)[None]
    matrix = np.cos(np.pi * k * (n + 0.5) / size) * np.sqrt(2 / size)
    matrix[0] /= np.sqrt(2)
    return matrix


def _image_means(function, images, *, chunk_size: int = 256):
    """Average `function(images)` over each image, in chunks to save memory."""
    chunks = (
        function(images[start : start + chunk_size].astype(np.float64))
        for start in range(0, len(images), chunk_size)
    )
    return np.concatenate([chunk.mean(axis=(1, 2, 3)) for chunk in chunks])
