"""Ancestral sampling from autoregressive models of categories."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from vqvae_jax.errors import require

LogitsFn = Callable[[Int[Array, "B H W C"]], Float[Array, "B H W C K"]]


def ancestral(
    logits_fn: LogitsFn,
    key: PRNGKeyArray,
    *,
    shape: tuple[int, int, int, int],
    temperature: float = 1.0,
) -> Int[Array, "B H W C"]:
    """Draw grids of categories one place at a time, in raster order.

    Args:
      logits_fn: codes `[B, H, W, C]` -> logits `[B, H, W, C, K]`, where the logits of a
        place depend on the codes of the places before it only.
      key: each place draws with a key of its own.
      shape: `(B, H, W, C)`.
      temperature: logits are divided by it; 1 samples the model itself.

    Returns `[B, H, W, C]` int32. All logits are computed anew for each place.

    Raises:
      UserError: the temperature is not above 0.
    """
    require(temperature > 0, f"temperature must be above 0, got {temperature}")
    batch, *grid = shape
    num_places = grid[0] * grid[1] * grid[2]

    def draw(codes, key_and_place):
        key, place = key_and_place
        logits = logits_fn(codes.reshape(shape))
        logits = logits.reshape(batch, num_places, -1)
        here = lax.dynamic_index_in_dim(logits, place, axis=1, keepdims=False)
        code = jax.random.categorical(key, here / temperature).astype(jnp.int32)
        return codes.at[:, place].set(code), None

    keys = jax.random.split(key, num_places)
    start = jnp.zeros((batch, num_places), jnp.int32)
    codes, _ = lax.scan(draw, start, (keys, jnp.arange(num_places)))
    return codes.reshape(shape)
