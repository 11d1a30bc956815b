"""How sharp images are: the contrast of neighbours, and power at high frequencies.

Both are numbers for each image, to be compared with those of real images of the same
size: `sharpness_ratios`. A ratio below 1 is blur. Noise and checkerboards count as
sharp, so that only samples that look right are praised by a ratio near 1.
"""

import numpy as np
from jaxtyping import Float, UInt8

from vqvae_jax.runtime.errors import require

# Cycles a pixel: half of Nyquist's 1/2.
_CUT = 0.25


def gradient_magnitude(
    images: UInt8[np.ndarray, "N H W C"],
) -> Float[np.ndarray, " N"]:
    """Return the mean length of an image's gradient, in grey levels a pixel.

    The gradient of a channel at (i, j) is (x[i+1, j] - x[i, j], x[i, j+1] - x[i, j]);
    its length is averaged over channels and the (H - 1) (W - 1) places that have both.

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

    return _mean_of_each(lengths, images)


def high_frequency_power(
    images: UInt8[np.ndarray, "N H W C"],
) -> Float[np.ndarray, " N"]:
    """Return the power above half of the Nyquist frequency, in squared grey levels.

    A channel's variance over its pixels is the sum of |X[k, l]|² / (H W) over all
    (k, l) but (0, 0), with X the orthonormal DCT-II. This is the part of that sum, in
    the mean over channels, whose frequency sqrt((k / 2H)² + (l / 2W)²) is above 1/4
    cycles a pixel. So a wave a cos(2 pi f x) of higher f has a² / 2, and one of lower f
    nothing. A DCT instead of a DFT, which takes the jump from one border to the
    opposite one for sharpness: of 32x32 photographs that a Gaussian of one pixel has
    blurred it finds 13 % of the power left, the DCT 2 %.
    """
    height, width = images.shape[1:3]
    rows, columns = _dct(height), _dct(width)
    frequency = np.hypot(
        np.arange(height)[:, None] / (2 * height),
        np.arange(width)[None] / (2 * width),
    )
    is_high = (frequency > _CUT)[None, :, :, None]

    def power(x):
        x = np.moveaxis(x, 3, 1)
        spectrum = np.moveaxis(rows @ x @ columns.T, 1, 3)
        # Their mean over H W coefficients is their sum / (H W).
        return np.square(spectrum) * is_high

    return _mean_of_each(power, images)


def sharpness_ratios(
    samples: UInt8[np.ndarray, "N H W C"], real: UInt8[np.ndarray, "M h w c"]
) -> dict[str, float]:
    """Return both means over samples, as ratios to those over real images.

    1 is as sharp as the real images, below is blurrier.

    Raises:
      UserError: samples and real images differ in size, so that a pixel of one is not
        a pixel of the other, or the real images have no detail to compare with.
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
        require(reference > 0, "the real images are all flat: nothing to compare with")
        ratios[name] = float(measure(samples).mean()) / reference
    return ratios


def _dct(size: int) -> Float[np.ndarray, "K N"]:
    """Return the orthonormal DCT-II as a matrix."""
    k, n = np.arange(size)[:, None], np.arange(size)[None]
    matrix = np.cos(np.pi * k * (n + 0.5) / size) * np.sqrt(2 / size)
    matrix[0] /= np.sqrt(2)
    return matrix


def _mean_of_each(function, images, *, at_once: int = 256):
    """Average `function(images)` over each image, some images at a time."""
    chunks = (
        function(images[start : start + at_once].astype(np.float64))
        for start in range(0, len(images), at_once)
    )
    return np.concatenate([chunk.mean(axis=(1, 2, 3)) for chunk in chunks])
