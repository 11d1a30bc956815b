"""VQ-VAE (van den Oord, Vinyals, Kavukcuoglu, 2017) in JAX.

    from vqvae_jax import quantizers  # pure functions of JAX arrays

    model, params = vqvae_jax.restore("runs/cifar")
    prior, prior_params = vqvae_jax.restore("runs/cifar", "prior")

Attributes are imported on first use.
"""

from typing import TYPE_CHECKING

from vqvae_jax import registry

if TYPE_CHECKING:
    from vqvae_jax import quantizers
    from vqvae_jax.models.gan import GAN
    from vqvae_jax.models.pixelcnn import PixelModel
    from vqvae_jax.models.prior import Prior
    from vqvae_jax.models.vae import VAE
    from vqvae_jax.models.vimco import VIMCO
    from vqvae_jax.models.vqvae import VQVAE
    from vqvae_jax.pretrained import restore, save_pretrained

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

# Where each name is defined; the registry knows the models.
_PATHS = {
    path.rpartition(":")[2]: path
    for path in (
        *(spec.model for spec in registry.MODELS.values()),
        *(spec.model for spec in registry.SECOND_STAGES.values()),
        "vqvae_jax.pretrained:restore",
        "vqvae_jax.pretrained:save_pretrained",
    )
} | {"quantizers": "vqvae_jax.quantizers"}


def __getattr__(name: str):
    """Import on first use: quantizers need JAX alone, the command line nothing."""
    if name == "__version__":
        return _version()
    if name not in _PATHS:
        raise AttributeError(f"module 'vqvae_jax' has no attribute {name!r}")
    return registry.load(_PATHS[name])


def _version() -> str:
    """Return the version of the installed package, "0+unknown" without one."""
    from importlib import metadata

    try:
        return metadata.version("vqvae_jax")
    except metadata.PackageNotFoundError:
        return "0+unknown"
