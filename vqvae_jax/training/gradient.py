"""The gradient of a batch's loss: at once, by parts, and over devices.

A part's loss is its share of the whole's: its terms are divided by what the whole
batch's mask counts. So gradients, losses and metrics of parts are added up, and
examples weigh the same whatever part they are in.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from vqvae_jax import metrics as metrics_lib
from vqvae_jax.quantizers.varying import vary_like

Batch = Mapping[str, Any]
Loss = Callable[[Any, PRNGKeyArray, Batch], tuple[Float[Array, ""], tuple]]


class Pass(NamedTuple):
    """What a forward and a backward pass give.

    gradient: of the loss by the parameters.
    metrics: the model's, and `loss`.
    carry: what `Model.update` is given.
    """

    gradient: Any
    metrics: dict[str, Any]
    carry: Any


def gradient_of(
    loss: Loss,
    params: Any,
    key: PRNGKeyArray,
    batch: Batch,
    *,
    accumulate: int = 1,
    axis_name: str | tuple[str, ...] | None = None,
) -> Pass:
    """Return the gradient of a model's loss, with its metrics and carry.

    Args:
      loss: `Model.loss`.
      params: the model's parameters.
      key: decides dropout and the like; parts and devices have keys of their own.
      batch: arrays `[B, ...]`, `mask` among them.
      accumulate: how many parts to take one after the other, a divisor of B. Only the
        activations of one are in memory.
      axis_name: the mapped axes of a pmap, vmap or shard_map whose devices hold parts
        of one batch. The gradient and metrics are the whole's; the carry is this
        device's, as `Model.update` expects it.
    """
    global_mask = batch["mask"]
    if axis_name is not None:
        # Of this device's part alone: the sum over all is taken once, below.
        params = vary_like(params, global_mask)
        key = jax.random.fold_in(key, lax.axis_index(axis_name))
        global_mask = lax.all_gather(global_mask, axis_name, tiled=True)

    def of_part(key, part):
        if part["mask"].shape != global_mask.shape:
            part = {**part, "global_mask": global_mask}
        (share, (metrics, carry)), gradient = jax.value_and_grad(
            lambda params: loss(params, key, part), has_aux=True
        )(params)
        return (gradient, share, metrics), carry

    if accumulate == 1:
        sums, carry = of_part(key, batch)
    else:
        keys = jax.random.split(key, accumulate)
        sums, carries = _sum_over(of_part, keys, _parts(batch, accumulate))
        carry = _joined(carries)
    if axis_name is not None:
        sums = lax.psum(sums, axis_name)
    gradient, value, metrics = sums
    return Pass(gradient, {**metrics, "loss": metrics_lib.mean(value[None])}, carry)


def _sum_over(function, *stacked):
    """Add up the first results of function over leading axes, and stack the second."""
    first = jax.tree.map(lambda x: x[0], stacked)
    shapes, _ = jax.eval_shape(function, *first)

    def add(sums, arguments):
        terms, carry = function(*arguments)
        return jax.tree.map(jnp.add, sums, terms), carry

    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    return lax.scan(add, zeros, stacked)


def _parts(batch: Batch, number: int) -> Batch:
    """Cut `[B, ...]` into `[number, B / number, ...]`.

    Part j takes every number-th row from the j-th on, not a run of them: each device
    then has its share of each part among the rows that it holds already.
    """
    return jax.tree.map(
        lambda x: x.reshape(-1, number, *x.shape[1:]).swapaxes(0, 1), dict(batch)
    )


def _joined(parts: Any) -> Any:
    """Undo `_parts`."""
    return jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[2:]), parts)
