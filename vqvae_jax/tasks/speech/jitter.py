"""What may be done to a sequence of codes before it is decoded."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray


def jittered(
    key: PRNGKeyArray,
    z_q: Float[Array, "B N D"],
    mask: Bool[Array, "B N"],
    *,
    rate: float,
) -> Float[Array, "B N D"]:
    """Put a neighbour, of either side, in the place of each code with a probability.

    A neighbour that is padding, or beyond an end, takes no one's place.
    """
    if rate == 0:
        return z_q
    if_key, side_key = jax.random.split(key)
    moves = jax.random.bernoulli(if_key, rate, mask.shape)
    side = 2 * jax.random.bernoulli(side_key, shape=mask.shape).astype(jnp.int32) - 1
    places = jnp.arange(mask.shape[1])[None]
    source = jnp.clip(places + side, 0, mask.shape[1] - 1)
    allowed = moves & jnp.take_along_axis(mask, source, axis=1)
    source = jnp.where(allowed, source, places)
    return jnp.take_along_axis(z_q, source[..., None], axis=1)


def moved_by_half(
    z_q: Float[Array, "B N D"], mask: Bool[Array, "B N"]
) -> Float[Array, "B N D"]:
    """Rotate each sequence by half of its own length; padding stays."""
    lengths = jnp.maximum(mask.sum(axis=1), 1)[:, None]
    places = jnp.arange(mask.shape[1])[None]
    source = jnp.where(mask, (places + lengths // 2) % lengths, places)
    return jnp.take_along_axis(z_q, source[..., None], axis=1)
