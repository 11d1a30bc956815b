"""Trained models to export and to load: one portable file, and a card beside it."""

from vqvae_jax.pretrained.loading import restore
from vqvae_jax.pretrained.save import save_pretrained

__all__ = ["restore", "save_pretrained"]
