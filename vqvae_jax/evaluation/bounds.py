"""Bits per dimension: the lower bound on log p(x) of section 3, in bits."""

import math


def bits_per_dim(
    *,
    nats_per_dim: float,
    bits_per_code: float,
    num_latents: int,
    num_dims: int,
) -> float:
    """Return (-log2 p(x|z_q) - log2 p(z)) / dimensions.

    Args:
      nats_per_dim: -log p(x|z_q) for each value of an image, of a distribution over its
        256 values; a squared error is not one.
      bits_per_code: -log2 p(z) for each code; log2 K under the uniform prior.
      num_latents: codes of an image.
      num_dims: values of an image.
    """
    return nats_per_dim / math.log(2) + bits_per_code * num_latents / num_dims
