"""Trained models to export and to load: one portable file, and a card beside it."""

from vqvae_jax.pretrained.loading import restore, save_pretrained

__all__ = ["restore", "save_pretrained"]
