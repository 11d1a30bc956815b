"""Autoregressive generation of categories: `cached` in linear time, `ancestral`."""

from vqvae_jax.sampling.choice import FREE, guided, require_drawable, truncated
from vqvae_jax.sampling.naive import ancestral
from vqvae_jax.sampling.raster import cached

__all__ = ["FREE", "ancestral", "cached", "guided", "require_drawable", "truncated"]
