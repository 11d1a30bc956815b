"""Exact sampling from a gated PixelCNN in time linear in the number of cells.

The vertical stack runs once per row and the horizontal stack once per cell, each from a
cache of the inputs that its layers still read (as Ramachandran et al., 2017, for
PixelCNN++). Nothing is computed twice, and only the codes and a conditioning feature
map grow with the number of rows.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Int, PRNGKeyArray

from vqvae_jax.networks.pixelcnn import UNCONDITIONAL, Condition, PixelCNN
from vqvae_jax.sampling.categorical import (
    FREE,
    Adjust,
    sample_categorical,
    truncated,
)

# Map logits [N, K] and inputs of a position to codes [N] and the position's output.
Step = Callable[[Any, Any], tuple[Int[Array, " N"], Any]]


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
        start = zeros(1, reach), no_cell
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
    reach, dtype = network.kernel_size // 2, network.dtype

    def zeros(rows, columns):
        x = jnp.zeros((batch, rows, columns, network.channels), dtype)
        return (x,) * network.layers

    no_cell = jnp.zeros((batch, 1, 1, network.channels), dtype)
    no_row = jnp.zeros((batch, 1, width, network.channels), dtype)
    features = condition.features
    if features is not None:
        features = jnp.moveaxis(features, 1, 0)[:, :, None]
    first = 0 if leading is None else leading.shape[1]
    carry = zeros(reach, width), no_row
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
