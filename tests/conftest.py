"""Eight CPU devices, checked shapes, strict rank promotion: set before JAX starts."""

# ruff: noqa: E402

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)

import jaxtyping

_hook = jaxtyping.install_import_hook("vqvae_jax", "beartype.beartype")
_hook.__enter__()

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")
