"""Autoregressive sampling of categories, at a cost linear in their number.

`cached` samples grids from a PixelCNN; in `stepwise` the host decides each code.
"""

from vqvae_jax.sampling.categorical import (
    FREE,
    guided,
    require_drawable,
    truncated,
)
from vqvae_jax.sampling.raster import ancestral, cached, stepwise

__all__ = [
    "FREE",
    "ancestral",
    "cached",
    "guided",
    "require_drawable",
    "stepwise",
    "truncated",
]
