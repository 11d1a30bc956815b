"""Trained models to give away and to read: one portable file, and a card beside it."""

from vqvae_jax.pretrained.loading import restore, restore_prior, restore_second
from vqvae_jax.pretrained.save import save_pretrained

__all__ = ["restore", "restore_prior", "restore_second", "save_pretrained"]
