"""Ancestral sampling from any autoregressive model, without a cache."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from vqvae_jax.sampling.categorical import (
    FREE,
    Adjust,
    sample_categorical,
    truncated,
)

LogitsFn = Callable[[Int[Array, "N H W C"]], Float[Array, "N H W C K"]]


def ancestral(
    logits_fn: LogitsFn,
    key: PRNGKeyArray,
    *,
    shape: tuple[int, int, int, int],
    adjust: Adjust = truncated,
    copies: int = 1,
    given: Int[Array, "B H W C"] | None = None,
) -> Int[Array, "B H W C"]:
    """Sample grids of categories one position at a time, in raster order.

    All logits are recomputed for each position. For a PixelCNN, `cached` samples the
    same codes from the same key, a thousand times faster on a 32x32 grid.

    Args:
      logits_fn: maps codes `[N, H, W, C]` to logits `[N, H, W, C, K]`, with
        N = copies * B; the logits of a position depend only on the codes before it.
      key: split into one key per position.
      shape: `(B, H, W, C)`.
      adjust: maps the logits of a position to the logits to sample from.
      copies: number of copies of the batch that `logits_fn` receives.
      given: codes to keep; -1 for those to sample.
    """
    batch, *grid = shape
    positions = grid[0] * grid[1] * grid[2]
    if given is None:
        given = jnp.full(shape, FREE, jnp.int32)

    def draw(codes, inputs):
        position, key, given_here = inputs
        logits = logits_fn(codes.reshape(-1, *grid))
        logits = logits.reshape(copies * batch, positions, -1)
        here = lax.dynamic_index_in_dim(logits, position, axis=1, keepdims=False)
        code = sample_categorical(adjust, here, key, given_here)
        return codes.at[:, position].set(code), None

    keys = jax.random.split(key, positions)
    inputs = jnp.arange(positions), keys, given.reshape(batch, positions).T
    start = jnp.zeros((copies * batch, positions), jnp.int32)
    codes, _ = lax.scan(draw, start, inputs)
    return codes[:batch].reshape(shape)
