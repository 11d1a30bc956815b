"""Exact sampling of grids in raster order.

`ancestral` takes any autoregressive model and recomputes everything at each position.
`cached` and `stepwise` take a gated PixelCNN and time linear in the number of cells:
the vertical stack runs once per row and the horizontal stack once per cell, each from a
cache of the inputs that its layers still read (as Ramachandran et al., 2017, for
PixelCNN++). Nothing is computed twice, and only the codes and a conditioning feature
map grow with the number of rows.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from vqvae_jax.networks.pixelcnn import UNCONDITIONAL, Condition, PixelCNN
from vqvae_jax.sampling.categorical import (
    FREE,
    Adjust,
    sample_categorical,
    truncated,
)

LogitsFn = Callable[[Int[Array, "N H W C"]], Float[Array, "N H W C K"]]
# Map logits [N, K] and inputs of a position to codes [N] and the position's output.
Step = Callable[[Any, Any], tuple[Int[Array, " N"], Any]]
# Map the logits of a position to its codes, on the host.
Respond = Callable[[Float[np.ndarray, "B K"]], Int[np.ndarray, " B"]]


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


def cached(
    network: PixelCNN,
    params: Any,
    key: PRNGKeyArray,
    *,
    shape: tuple[int, int, int, int],
    condition: Condition = UNCONDITIONAL,
    adjust: Adjust = truncated,
    copies: int = 1,
    given: Int[Array, "B H W C"] | None = None,
    leading: Int[Array, "B R W C"] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Int[Array, "B H W C"]:
    """Sample grids of codes, the same as `ancestral` from the same key.

    Args:
      network: the PixelCNN.
      params: the network's parameters.
      key: split into one key per position.
      shape: `(B, H, W, C)`.
      condition: of the network's whole batch, `copies * B` grids.
      adjust: maps the logits `[copies * B, K]` of a position to the logits `[B, K]` to
        sample from.
      copies: number of copies of each grid in the network's batch, which may have
        different conditions.
      given: codes to keep; -1 for those to sample.
      leading: codes of the first rows, which pass through the vertical stack only.
      progress: called after each row with the number of finished rows.

    Raises:
      UserError: the condition does not match the network.
    """
    batch, height, width, per_cell = shape
    network.check((copies * batch, *shape[1:]), condition)
    keys = jax.random.split(key, height * width * per_cell)
    # A legacy key is an array of numbers with a trailing axis.
    keys = keys.reshape(*shape[1:], *keys.shape[1:])
    if given is None:
        given = jnp.full(shape, FREE, jnp.int32)
    given = jnp.moveaxis(given, 0, -1)
    first = 0 if leading is None else leading.shape[1]

    def step(logits, inputs):
        key, given_here = inputs
        code = sample_categorical(adjust, logits, key, given_here)
        return code, code[:batch]

    tiled = None if leading is None else jnp.tile(leading, (copies, 1, 1, 1))
    codes = walk(
        network,
        params,
        step,
        (keys[first:], given[first:]),
        shape=(copies * batch, *shape[1:]),
        condition=condition,
        leading=tiled,
        progress=progress,
    )
    codes = jnp.moveaxis(codes, -1, 0)
    return codes if leading is None else jnp.concatenate([leading, codes], axis=1)


def walk(
    network: PixelCNN,
    params: Any,
    step: Step,
    inputs: Any,
    *,
    shape: tuple[int, int, int, int],
    condition: Condition,
    leading: Int[Array, "N R W C"] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Any:
    """Apply `step` to each position of a grid in raster order.

    Args:
      network: the PixelCNN.
      params: the network's parameters.
      step: maps the logits and inputs of a position to its codes and its output.
      inputs: pytree of arrays `[rows, W, C, ...]`, for the rows after the leading ones.
      shape: `(N, H, W, C)` of the network's batch.
      condition: of the network's batch.
      leading: codes of the first rows.
      progress: called after each row with the number of finished rows.

    Returns:
      The outputs, `[rows, W, C, ...]`.
    """

    def apply(method, *arguments):
        return network.apply(params, *arguments, method=method)

    def next_row(cache, above, features):
        row_condition = condition._replace(features=features)
        return apply("next_row", cache, above, row_condition)

    def one_row(carry, row):
        cache, above = carry
        number, features, row_inputs = row
        cache, guides = next_row(cache, above, features)
        columns = jax.tree.map(lambda x: jnp.moveaxis(x, 2, 0)[:, :, :, None], guides)
        start = _empty(network, batch, 1, reach), _zeros(network, batch, 1, 1)
        _, (cells, outputs) = lax.scan(one_cell, start, (columns, row_inputs))
        if progress is not None:
            jax.debug.callback(progress, number + 1)
        return (cache, jnp.moveaxis(cells[:, :, :, 0], 0, 2)), outputs

    def one_cell(carry, cell):
        cache, left = carry
        guides, cell_inputs = cell
        cache, context = apply("next_cell", cache, left, guides)

        def one_code(earlier, index_and_inputs):
            index, code_inputs = index_and_inputs
            logits = apply("next_code", context, earlier, index)
            code, output = step(logits, code_inputs)
            return earlier + apply("embed_code", code, index), (code, output)

        start = jnp.zeros(context.shape, jnp.float32)
        indexed = jnp.arange(per_cell), cell_inputs
        _, (codes, outputs) = lax.scan(one_code, start, indexed)
        left = apply("embed", codes.T[:, None, None])
        return (cache, left), (left, outputs)

    batch, height, width, per_cell = shape
    reach = network.kernel_size // 2
    features = condition.features
    if features is not None:
        features = jnp.moveaxis(features, 1, 0)[:, :, None]
    first = 0 if leading is None else leading.shape[1]
    carry = _empty(network, batch, reach, width), _zeros(network, batch, 1, width)
    if first:

        def pass_row(carry, row):
            cache, above = carry
            features, embedded = row
            cache, _ = next_row(cache, above, features)
            return (cache, embedded), None

        rows = jnp.moveaxis(apply("embed", leading), 1, 0)[:, :, None]
        before = None if features is None else features[:first]
        carry, _ = lax.scan(pass_row, carry, (before, rows))
    after = None if features is None else features[first:]
    _, outputs = lax.scan(one_row, carry, (jnp.arange(first, height), after, inputs))
    return outputs


def stepwise(
    network: PixelCNN,
    params: Any,
    respond: Respond,
    *,
    shape: tuple[int, int, int, int],
    condition: Condition = UNCONDITIONAL,
) -> Int[np.ndarray, "B H W C"]:
    """Call `respond` with the logits of each position, for a codec.

    `walk` compiles the whole scan into one program. Here the host loops over the
    positions and calls small programs, each compiled once per grid shape. Encoder and
    decoder of a file run the same programs on the same numbers, so their logits agree
    to the last bit; the logits of whole grids computed at once do not. Takes time
    linear in the number of cells, as `cached`.

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
    reach = network.kernel_size // 2
    codes = np.zeros(shape, np.int32)
    rows, above = _empty(network, batch, reach, width), _zeros(network, batch, 1, width)
    for row in range(height):
        rows, guides = _enter_row(network, params, rows, above, condition, row)
        cells, left = _empty(network, batch, 1, reach), _zeros(network, batch, 1, 1)
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


def _empty(network: PixelCNN, *sides: int) -> tuple[Array, ...]:
    """Return the empty caches of all layers."""
    return (_zeros(network, *sides),) * network.layers


def _zeros(network: PixelCNN, *sides: int) -> Array:
    return jnp.zeros((*sides, network.channels), network.dtype)
