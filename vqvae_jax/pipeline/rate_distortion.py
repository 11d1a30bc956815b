"""Rate, distortion and their sum: the lower bound on log p(x) of section 3, in bits.

Each is kept for each image. The distortion is -log2 p(x|z), of a distribution over the
256 values of each of the image's dimensions; the rate is what the latents cost.
"""

import math
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

# Of each image, by name; a name says `bits` once.
Bits = dict[str, Float[np.ndarray, " N"]]


def of_codes(
    distortion: Float[np.ndarray, " N"] | None,
    *,
    num_latents: int,
    num_codes: int,
    learned_rate: Float[np.ndarray, " N"] | None,
) -> Bits:
    """Return rates, distortion and bounds of images that are codes, in bits.

    A prior's name ends the names of what depends on it: `uniform_prior`, for which each
    code costs log2 K, and `learned_prior`.

    Args:
      distortion: -log2 p(x|z_q); None where that is a density, and there is no bound.
      num_latents: N, codes of an image.
      num_codes: K.
      learned_rate: -log2 p(z); None without a learned prior.
    """
    some = learned_rate if distortion is None else distortion
    if some is None:
        return {}
    rates = {"uniform": np.full(some.shape, num_latents * math.log2(num_codes))}
    if learned_rate is not None:
        rates["learned"] = learned_rate
    bits = {f"rate_bits_{prior}_prior": rate for prior, rate in rates.items()}
    if distortion is not None:
        bits["distortion_bits"] = distortion
        bits |= {
            f"bits_{prior}_prior": distortion + rate for prior, rate in rates.items()
        }
    return bits


def per_dim(bits: Bits, *, num_dims: int) -> Mapping[str, float]:
    """Return the means over images, for each of an image's values: `bits_per_dim`."""
    return {
        name.replace("bits", "bits_per_dim"): float(np.mean(values, dtype=np.float64))
        / num_dims
        for name, values in bits.items()
    }
