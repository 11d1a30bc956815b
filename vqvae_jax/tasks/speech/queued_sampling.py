"""Sample from a WaveNet at a cost per step independent of its receptive field.

Each layer keeps a queue of the inputs it still needs (Paine et al., *Fast WaveNet
Generation Algorithm*, 2016). The terms that a condition adds to the layers are computed
once per feature, before sampling.
"""

from collections.abc import Callable
from typing import Any

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
from vqvae_jax.tasks.speech.wavenet import UNCONDITIONAL, SequenceCondition, WaveNet

# (logits [B, K], inputs of a step) -> (values [B], output of the step).
Step = Callable[[Any, Any], tuple[Int[Array, " B"], Any]]


def queued(
    network: WaveNet,
    params: Any,
    key: PRNGKeyArray,
    *,
    shape: tuple[int, int],
    condition: SequenceCondition = UNCONDITIONAL,
    adjust: Adjust = truncated,
    given: Int[Array, "B T"] | None = None,
) -> Int[Array, "B T"]:
    """Sample sequences of values, one step after the other.

    Args:
      network: the WaveNet.
      params: its parameters.
      key: split into one key per step.
      shape: `(B, T)`.
      condition: the condition of the sequences.
      adjust: maps the logits `[B, K]` of a step to the logits to sample from.
      given: values to keep; -1 where values are sampled.

    Raises:
      UserError: if the condition does not match the network.
    """
    length = shape[1]
    if given is None:
        given = jnp.full(shape, FREE, jnp.int32)

    def step(logits, inputs):
        key, given_values = inputs
        value = sample_categorical(adjust, logits, key, given_values)
        return value, value

    inputs = jax.random.split(key, length), given.T
    return walk(network, params, step, inputs, shape=shape, condition=condition).T


def ancestral(
    logits_fn: Callable[[Int[Array, "B T"]], Float[Array, "B T K"]],
    key: PRNGKeyArray,
    *,
    shape: tuple[int, int],
    adjust: Adjust = truncated,
) -> Int[Array, "B T"]:
    """Sample the sequences of `queued`, recomputing all logits at each step.

    Args:
      logits_fn: maps values `[B, T]` to logits `[B, T, K]`; the logits of a step depend
        on earlier values only.
      key: split into one key per step.
      shape: `(B, T)`.
      adjust: maps the logits `[B, K]` of a step to the logits to sample from.
    """
    batch, length = shape
    free = jnp.full((batch,), FREE, jnp.int32)

    def draw(values, inputs):
        step, key = inputs
        logits = lax.dynamic_index_in_dim(
            logits_fn(values), step, axis=1, keepdims=False
        )
        return values.at[:, step].set(
            sample_categorical(adjust, logits, key, free)
        ), None

    start = jnp.zeros(shape, jnp.int32)
    inputs = jnp.arange(length), jax.random.split(key, length)
    return lax.scan(draw, start, inputs)[0]


def walk(
    network: WaveNet,
    params: Any,
    step: Step,
    inputs: Any,
    *,
    shape: tuple[int, int],
    condition: SequenceCondition = UNCONDITIONAL,
) -> Any:
    """Run the network step by step, and call `step` to choose the value of each step.

    Args:
      network: the WaveNet.
      params: its parameters.
      step: maps the logits and the inputs of a step to its values and its output.
      inputs: pytree of arrays `[T, ...]`, the inputs of each step.
      shape: `(B, T)`.
      condition: the condition of the sequences.

    Returns:
      The outputs of all steps, `[T, ...]`.
    """
    batch, length = shape
    network.check(shape, condition)

    def apply(method, *arguments):
        return network.apply(params, *arguments, method=method)

    # One block of steps per feature; without features, a single block.
    block = network.steps_per_feature if network.feature_channels else length
    guides = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), apply("guides", condition))
    count = -(-length // block)
    steps = jnp.arange(count * block).reshape(count, block)
    spare = count * block - length

    def in_blocks(x):
        padded = jnp.concatenate([x, jnp.repeat(x[-1:], spare, axis=0)]) if spare else x
        return padded.reshape(count, block, *x.shape[1:])

    def one_block(carry, block_inputs):
        block_steps, block_of_inputs, guides = block_inputs

        def one_step(carry, step_inputs):
            queues, previous = carry
            number, inputs = step_inputs
            queues, logits = apply("next_value", queues, number, previous, guides)
            value, output = step(logits, inputs)
            return (queues, apply("embed", value)), output

        return lax.scan(one_step, carry, (block_steps, block_of_inputs))

    queues = tuple(
        jnp.zeros((dilation + 1, batch, network.channels), network.dtype)
        for dilation in network.dilations
    )
    previous = jnp.zeros((batch, network.channels), network.dtype)
    _, outputs = lax.scan(
        one_block,
        (queues, previous),
        (steps, jax.tree.map(in_blocks, inputs), guides),
    )
    return jax.tree.map(
        lambda x: x.reshape(count * block, *x.shape[2:])[:length], outputs
    )
