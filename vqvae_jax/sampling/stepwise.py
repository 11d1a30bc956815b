"""A walk through grids of which the host decides each code: what a codec needs.

`raster.walk` compiles a whole walk into one program. Here the host goes from place to
place and calls small programs, each compiled once for a shape of grids. Who writes a
file and who reads it run the very same programs on the very same numbers, so that their
logits agree to the last bit, which logits of whole grids at once would not.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from vqvae_jax.networks.pixelcnn import UNCONDITIONAL, Condition, PixelCNN

# Logits of a place -> its codes.
Respond = Callable[[Float[np.ndarray, "B K"]], Int[np.ndarray, " B"]]


def stepwise(
    network: PixelCNN,
    params: Any,
    respond: Respond,
    *,
    shape: tuple[int, int, int, int],
    condition: Condition = UNCONDITIONAL,
) -> Int[np.ndarray, "B H W C"]:
    """Ask for the codes of each place in raster order, given the logits there.

    In time linear in the cells, as `raster.cached`.

    Args:
      network: says what to compute, `params` with which parameters.
      params: the network's.
      respond: from the logits of a place, float32, to its codes.
      shape: `(B, H, W, C)`.
      condition: of these grids.

    Returns the codes.

    Raises:
      UserError: the condition is not what the network was built for.
    """
    network.check(shape, condition)
    batch, height, width, per_cell = shape
    codes = np.zeros(shape, np.int32)
    rows, above = _zeros(network, (batch, -1, width)), _zero(network, (batch, 1, width))
    for row in range(height):
        rows, guides = _enter_row(network, params, rows, above, condition, row)
        cells, left = _zeros(network, (batch, 1, -1)), _zero(network, (batch, 1, 1))
        for column in range(width):
            cells, context, earlier, logits = _enter_cell(
                network, params, cells, left, guides, column
            )
            for place in range(per_cell):
                if place:
                    before = codes[:, row, column, place - 1]
                    earlier, logits = _next_code(
                        network, params, context, earlier, before, place
                    )
                codes[:, row, column, place] = respond(np.asarray(logits))
            left = _embed(network, params, codes[:, row : row + 1, column : column + 1])
        above = _embed(network, params, codes[:, row : row + 1])
    return codes


_compiled = functools.partial(jax.jit, static_argnums=0)


@_compiled
def _enter_row(network, params, cache, above, condition: Condition, row) -> Any:
    """Return the next cache, and the guides of each layer with the columns first."""
    if condition.features is not None:
        features = lax.dynamic_slice_in_dim(condition.features, row, 1, axis=1)
        condition = condition._replace(features=features)
    cache, guides = network.apply(params, cache, above, condition, method="next_row")
    return cache, jax.tree.map(lambda x: jnp.moveaxis(x, 2, 0)[:, :, :, None], guides)


@_compiled
def _enter_cell(network, params, cache, left, guides, column) -> Any:
    """Return the next cache, the cell's context, and what its first place has."""
    here = jax.tree.map(
        lambda x: lax.dynamic_index_in_dim(x, column, keepdims=False), guides
    )
    cache, context = network.apply(params, cache, left, here, method="next_cell")
    earlier = jnp.zeros(context.shape, jnp.float32)
    first = jnp.zeros((), jnp.int32)
    logits = network.apply(params, context, earlier, first, method="next_code")
    return cache, context, earlier, logits


@_compiled
def _next_code(network, params, context, earlier, code, place) -> Any:
    """Return what a later place has, whose `code` before it is known now."""
    read = network.apply(params, code, place - 1, method="embed_code")
    earlier = earlier + read
    return earlier, network.apply(params, context, earlier, place, method="next_code")


@_compiled
def _embed(network, params, codes) -> Float[Array, "B H W F"]:
    return network.apply(params, codes, method="embed")


def _zeros(network: PixelCNN, sides: tuple[int, int, int]) -> tuple[Array, ...]:
    """Return the cache of each layer before anything was seen; -1 is its reach."""
    reach = network.kernel_size // 2
    cache = _zero(network, tuple(reach if side == -1 else side for side in sides))
    return (cache,) * network.layers


def _zero(network: PixelCNN, sides: tuple[int, int, int]) -> Array:
    return jnp.zeros((*sides, network.units), network.dtype)
