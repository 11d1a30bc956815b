"""Mu-law: 16 bits of sound in 256 values that are closer together near silence."""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Integer

from vqvae_jax.likelihoods.base import NUM_VALUES

MU = NUM_VALUES - 1


def mu_law_encode(x: Float[Array, "*shape"]) -> Int[Array, "*shape"]:
    """Return the nearest of 256 values, int32, of samples in [-1, 1].

    Those outside are clipped. Silence becomes 128.

    f(x) = sign(x) ln(1 + μ|x|) / ln(1 + μ), μ = 255 (ITU-T G.711; WaveNet,
    van den Oord et al. 2016, section 2.2), then [-1, 1] in 255 equal steps.
    """
    x = jnp.clip(x.astype(jnp.float32), -1.0, 1.0)
    companded = jnp.sign(x) * jnp.log1p(MU * jnp.abs(x)) / math.log1p(MU)
    return jnp.floor((companded + 1.0) / 2.0 * MU + 0.5).astype(jnp.int32)


def mu_law_decode(values: Integer[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return the sample in [-1, 1], float32, that each of 256 values stands for.

    The inverse of `mu_law_encode`: what is encoded and decoded stays within half a
    step, measured after companding.
    """
    # In 8 bits twice a value would not be twice as large.
    companded = (2 * values.astype(jnp.int32) - MU).astype(jnp.float32) / MU
    magnitude = jnp.expm1(jnp.abs(companded) * math.log1p(MU)) / MU
    return jnp.sign(companded) * magnitude
