"""A raster scan in which the host decides each code, as a codec needs.

`raster.walk` compiles the whole scan into one program. Here the host loops over the
positions and calls small programs, each compiled once per grid shape. Encoder and
decoder of a file run the same programs on the same numbers, so their logits agree to
the last bit; the logits of whole grids computed at once do not.
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

# Map the logits of a position to its codes.
Respond = Callable[[Float[np.ndarray, "B K"]], Int[np.ndarray, " B"]]


def stepwise(
    network: PixelCNN,
    params: Any,
    respond: Respond,
    *,
    shape: tuple[int, int, int, int],
    condition: Condition = UNCONDITIONAL,
) -> Int[np.ndarray, "B H W C"]:
    """Call `respond` with the logits of each position in raster order.

    Takes time linear in the number of cells, as `raster.cached`.

    Args:
      network: the PixelCNN.
      params: the network's parameters.
      respond: maps the float32 logits of a position to its codes.
      shape: `(B, H, W, C)`.
      condition: of these grids.

    Returns:
      The codes.

    Raises:
      UserError: the condition does not match the network.
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
            for index in range(per_cell):
                if index:
                    before = codes[:, row, column, index - 1]
                    earlier, logits = _next_code(
                        network, params, context, earlier, before, index
                    )
                codes[:, row, column, index] = respond(np.asarray(logits))
            left = _embed(network, params, codes[:, row : row + 1, column : column + 1])
        above = _embed(network, params, codes[:, row : row + 1])
    return codes


_compiled = functools.partial(jax.jit, static_argnums=0)


@_compiled
def _enter_row(network, params, cache, above, condition: Condition, row) -> Any:
    """Return the next cache and the guides of each layer, columns first."""
    if condition.features is not None:
        features = lax.dynamic_slice_in_dim(condition.features, row, 1, axis=1)
        condition = condition._replace(features=features)
    cache, guides = network.apply(params, cache, above, condition, method="next_row")
    return cache, jax.tree.map(lambda x: jnp.moveaxis(x, 2, 0)[:, :, :, None], guides)


@_compiled
def _enter_cell(network, params, cache, left, guides, column) -> Any:
    """Return the next cache, the cell's context, and the state of its first code.

    The state is the sum of the earlier embeddings, zeros here, and the logits.
    """
    here = jax.tree.map(
        lambda x: lax.dynamic_index_in_dim(x, column, keepdims=False), guides
    )
    cache, context = network.apply(params, cache, left, here, method="next_cell")
    earlier = jnp.zeros(context.shape, jnp.float32)
    first = jnp.zeros((), jnp.int32)
    logits = network.apply(params, context, earlier, first, method="next_code")
    return cache, context, earlier, logits


@_compiled
def _next_code(network, params, context, earlier, code, index) -> Any:
    """Return the sum of embeddings and the logits at `index`, after `code`."""
    embedded = network.apply(params, code, index - 1, method="embed_code")
    earlier = earlier + embedded
    return earlier, network.apply(params, context, earlier, index, method="next_code")


@_compiled
def _embed(network, params, codes) -> Float[Array, "B H W F"]:
    return network.apply(params, codes, method="embed")


def _zeros(network: PixelCNN, sides: tuple[int, int, int]) -> tuple[Array, ...]:
    """Return empty caches of all layers; a side of -1 stands for their reach."""
    reach = network.kernel_size // 2
    cache = _zero(network, tuple(reach if side == -1 else side for side in sides))
    return (cache,) * network.layers


def _zero(network: PixelCNN, sides: tuple[int, int, int]) -> Array:
    return jnp.zeros((*sides, network.channels), network.dtype)
