"""Rate, distortion and their sum, the lower bound on log p(x) (section 3), in bits.

All are per image. The distortion is -log2 p(x|z), where p(x|z) is a distribution over
the 256 values of each dimension of the image; the rate is the cost of the latents.
"""

import math
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

# Arrays over images by name; each name contains `bits` once.
Bits = dict[str, Float[np.ndarray, " N"]]


def bounds(
    distortion: Float[np.ndarray, " N"] | None,
    *,
    num_latents: int,
    num_codes: int,
    learned_rate: Float[np.ndarray, " N"] | None,
) -> Bits:
    """Return rates, distortion and bounds of coded images, in bits.

    Names end with the prior that they depend on: `uniform_prior`, under which each code
    costs log2 K, or `learned_prior`.

    Args:
      distortion: -log2 p(x|z_q); None where p(x|z) is a density, without a bound.
      num_latents: N, codes of an image.
      num_codes: K.
      learned_rate: -log2 p(z); None without a learned prior.
    """
    measured = learned_rate if distortion is None else distortion
    if measured is None:
        return {}
    rates = {"uniform": np.full(measured.shape, num_latents * math.log2(num_codes))}
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
    """Return the means over images, divided by the values of an image."""
    return {
        name.replace("bits", "bits_per_dim"): float(np.mean(values, dtype=np.float64))
        / num_dims
        for name, values in bits.items()
    }
