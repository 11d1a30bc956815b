"""VQ-VAE (van den Oord, Vinyals, Kavukcuoglu, 2017), whole and in JAX.

from vqvae_jax import quantizer              # pure functions, depends on jax alone
model, params = vqvae_jax.restore("runs/cifar")
prior, prior_params = vqvae_jax.restore_prior("runs/cifar")
"""

from typing import TYPE_CHECKING

from vqvae_jax import quantizer

if TYPE_CHECKING:
    from vqvae_jax.models.prior import Prior
    from vqvae_jax.models.vqvae import VQVAE
    from vqvae_jax.workdir import restore, restore_prior

__all__ = ["VQVAE", "Prior", "quantizer", "restore", "restore_prior"]


def __getattr__(name: str):
    """Import on first use, so that the quantizer alone needs nothing but JAX."""
    if name == "VQVAE":
        from vqvae_jax.models.vqvae import VQVAE

        return VQVAE
    if name == "Prior":
        from vqvae_jax.models.prior import Prior

        return Prior
    if name in ("restore", "restore_prior"):
        from vqvae_jax import workdir

        return getattr(workdir, name)
    raise AttributeError(f"module 'vqvae_jax' has no attribute {name!r}")
