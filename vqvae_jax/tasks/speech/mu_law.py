"""Mu-law companding: quantise audio to 256 values, spaced more finely near silence."""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Integer

from vqvae_jax.likelihoods.base import NUM_VALUES

MU = NUM_VALUES - 1


def mu_law_encode(x: Float[Array, "*shape"]) -> Int[Array, "*shape"]:
    """Encode samples in [-1, 1] as the nearest of 256 values, int32.

    Samples outside [-1, 1] are clipped. Silence is encoded as 128.

    f(x) = sign(x) ln(1 + μ|x|) / ln(1 + μ) with μ = 255 (ITU-T G.711; WaveNet,
    van den Oord et al. 2016, section 2.2), followed by uniform quantisation of [-1, 1]
    in 255 steps.
    """
    x = jnp.clip(x.astype(jnp.float32), -1.0, 1.0)
    companded = jnp.sign(x) * jnp.log1p(MU * jnp.abs(x)) / math.log1p(MU)
    return jnp.floor((companded + 1.0) / 2.0 * MU + 0.5).astype(jnp.int32)


def mu_law_decode(values: Integer[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Decode each of 256 values to a float32 sample in [-1, 1].

    Inverts `mu_law_encode` up to half a quantisation step, measured after companding.
    """
    # Cast first: doubling an 8-bit value would overflow.
    companded = (2 * values.astype(jnp.int32) - MU).astype(jnp.float32) / MU
    magnitude = jnp.expm1(jnp.abs(companded) * math.log1p(MU)) / MU
    return jnp.sign(companded) * magnitude
