"""VQ-VAE (van den Oord, Vinyals, Kavukcuoglu, 2017), whole and in JAX.

from vqvae_jax import quantizers             # pure functions, depends on jax alone
model, params = vqvae_jax.restore("runs/cifar")
prior, prior_params = vqvae_jax.restore_prior("runs/cifar")
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vqvae_jax import quantizers
    from vqvae_jax.models.gan import GAN
    from vqvae_jax.models.pixelcnn import PixelModel
    from vqvae_jax.models.prior import Prior
    from vqvae_jax.models.vae import VAE
    from vqvae_jax.models.vimco import VIMCO
    from vqvae_jax.models.vqvae import VQVAE
    from vqvae_jax.pretrained import (
        restore,
        restore_prior,
        restore_second,
        save_pretrained,
    )
    from vqvae_jax.tasks.hierarchy.model import Hierarchy
    from vqvae_jax.tasks.speech.model import SpeechVQVAE
    from vqvae_jax.tasks.speech.prior import SequencePrior
    from vqvae_jax.tasks.video.model import Video

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
    "quantizers",
    "restore",
    "restore_prior",
    "restore_second",
    "save_pretrained",
]

_HOMES = {
    "GAN": "models.gan",
    "Hierarchy": "tasks.hierarchy.model",
    "PixelModel": "models.pixelcnn",
    "Prior": "models.prior",
    "SequencePrior": "tasks.speech.prior",
    "SpeechVQVAE": "tasks.speech.model",
    "VAE": "models.vae",
    "VIMCO": "models.vimco",
    "VQVAE": "models.vqvae",
    "Video": "tasks.video.model",
    "restore": "pretrained",
    "restore_prior": "pretrained",
    "restore_second": "pretrained",
    "save_pretrained": "pretrained",
}


def __getattr__(name: str):
    """Import on first use: the quantizer needs JAX alone, the command line not even."""
    if name == "quantizers":
        return importlib.import_module("vqvae_jax.quantizers")
    if name not in _HOMES:
        raise AttributeError(f"module 'vqvae_jax' has no attribute {name!r}")
    return getattr(importlib.import_module(f"vqvae_jax.{_HOMES[name]}"), name)
