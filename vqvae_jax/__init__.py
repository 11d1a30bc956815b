"""VQ-VAE (van den Oord, Vinyals, Kavukcuoglu, 2017), whole and in JAX.

from vqvae_jax import quantizer              # pure functions, depends on jax alone
model, params = vqvae_jax.restore("runs/cifar")
prior, prior_params = vqvae_jax.restore_prior("runs/cifar")
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vqvae_jax import quantizer
    from vqvae_jax.models.gan import GAN
    from vqvae_jax.models.hierarchy import Hierarchy
    from vqvae_jax.models.pixels import PixelModel
    from vqvae_jax.models.prior import Prior
    from vqvae_jax.models.sequence_prior import SequencePrior
    from vqvae_jax.models.speech import SpeechVQVAE
    from vqvae_jax.models.vae import VAE
    from vqvae_jax.models.video import Video
    from vqvae_jax.models.vimco import VIMCO
    from vqvae_jax.models.vqvae import VQVAE
    from vqvae_jax.pretrained import (
        restore,
        restore_prior,
        restore_second,
        save_pretrained,
    )

__all__ = [
    "GAN",
    "VAE",
    "VIMCO",
    "VQVAE",
    "Hierarchy",
    "PixelModel",
    "Prior",
    "SequencePrior",
    "SpeechVQVAE",
    "Video",
    "quantizer",
    "restore",
    "restore_prior",
    "restore_second",
    "save_pretrained",
]

_HOMES = {
    "GAN": "models.gan",
    "Hierarchy": "models.hierarchy",
    "PixelModel": "models.pixels",
    "Prior": "models.prior",
    "SequencePrior": "models.sequence_prior",
    "SpeechVQVAE": "models.speech",
    "VAE": "models.vae",
    "VIMCO": "models.vimco",
    "VQVAE": "models.vqvae",
    "Video": "models.video",
    "restore": "pretrained",
    "restore_prior": "pretrained",
    "restore_second": "pretrained",
    "save_pretrained": "pretrained",
}


def __getattr__(name: str):
    """Import on first use: the quantizer needs JAX alone, the command line not even."""
    if name == "quantizer":
        return importlib.import_module("vqvae_jax.quantizer")
    if name not in _HOMES:
        raise AttributeError(f"module 'vqvae_jax' has no attribute {name!r}")
    return getattr(importlib.import_module(f"vqvae_jax.{_HOMES[name]}"), name)
