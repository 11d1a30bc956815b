"""Jitter and roll sequences of z_q before decoding."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray


def jitter(
    key: PRNGKeyArray,
    z_q: Float[Array, "B N D"],
    mask: Bool[Array, "B N"],
    *,
    rate: float,
) -> Float[Array, "B N D"]:
    """Replace each vector, with probability `rate`, by its left or right neighbour.

    Never copy a neighbour that is padding or beyond an end of the sequence.
    """
    if rate == 0:
        return z_q
    replace_key, side_key = jax.random.split(key)
    replace = jax.random.bernoulli(replace_key, rate, mask.shape)
    side = 2 * jax.random.bernoulli(side_key, shape=mask.shape).astype(jnp.int32) - 1
    positions = jnp.arange(mask.shape[1])[None]
    source = jnp.clip(positions + side, 0, mask.shape[1] - 1)
    allowed = replace & jnp.take_along_axis(mask, source, axis=1)
    source = jnp.where(allowed, source, positions)
    return jnp.take_along_axis(z_q, source[..., None], axis=1)


def roll_by_half(
    z_q: Float[Array, "B N D"], mask: Bool[Array, "B N"]
) -> Float[Array, "B N D"]:
    """Roll each sequence by half of its length, leaving padding in position."""
    lengths = jnp.maximum(mask.sum(axis=1), 1)[:, None]
    positions = jnp.arange(mask.shape[1])[None]
    source = jnp.where(mask, (positions + lengths // 2) % lengths, positions)
    return jnp.take_along_axis(z_q, source[..., None], axis=1)
