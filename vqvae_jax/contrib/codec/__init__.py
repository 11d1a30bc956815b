"""Codes of images as a file that is as small as their prior says.

Each code is entropy-coded with the probability that the prior gives it after those
before it, or with 1 / K where there is no prior. `grids.Codec` is the way in.
"""

from vqvae_jax.contrib.codec.grids import Codec, Compressed, Decompressed

__all__ = ["Codec", "Compressed", "Decompressed"]
