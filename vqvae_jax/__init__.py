"""VQ-VAE (van den Oord, Vinyals, Kavukcuoglu, 2017) in JAX.

    from vqvae_jax import quantizers  # pure functions of JAX arrays

    model, params = vqvae_jax.restore("runs/cifar")
    prior, prior_params = vqvae_jax.restore("runs/cifar", "prior")

Attributes are imported on first use.
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
        save_pretrained,
    )
    from vqvae_jax.tasks.hierarchy.model import Hierarchy
    from vqvae_jax.tasks.speech.model import SpeechVQVAE
    from vqvae_jax.tasks.speech.prior import SequencePrior
    from vqvae_jax.tasks.video.model import Video

    __version__: str

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
    "save_pretrained": "pretrained",
}


def __getattr__(name: str):
    """Import on first use: quantizers need JAX alone, the command line nothing."""
    if name == "__version__":
        return _version()
    if name == "quantizers":
        return importlib.import_module("vqvae_jax.quantizers")
    if name not in _HOMES:
        raise AttributeError(f"module 'vqvae_jax' has no attribute {name!r}")
    return getattr(importlib.import_module(f"vqvae_jax.{_HOMES[name]}"), name)


def _version() -> str:
    """Return the version of the installed package, "0+unknown" without one."""
    from importlib import metadata

    try:
        return metadata.version("vqvae_jax")
    except metadata.PackageNotFoundError:
        return "0+unknown"
