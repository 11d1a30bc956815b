"""Sampling from a WaveNet at a cost that does not grow with its receptive field.

Each layer keeps a queue of what it still sees (Paine et al., *Fast WaveNet Generation
Algorithm*, 2016). What a condition adds to the layers is computed once for each of its
features, before anything is drawn.
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
    choose,
    truncated,
)
from vqvae_jax.tasks.speech.wavenet import UNCONDITIONAL, SequenceCondition, WaveNet

# Logits [B, K] and a step's inputs -> values [B], and what to keep of the step.
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
    """Draw sequences of values, one after the other.

    Args:
      network: says what to compute, `params` with which parameters.
      params: the network's.
      key: each step draws with a key of its own.
      shape: `(B, T)`.
      condition: of these sequences.
      adjust: logits `[B, K]` of a step -> those to draw from.
      given: values that are not drawn; -1 where they are.

    Raises:
      UserError: the condition is not what the network was built for.
    """
    length = shape[1]
    if given is None:
        given = jnp.full(shape, FREE, jnp.int32)

    def step(logits, inputs):
        key, given_here = inputs
        value = choose(adjust, logits, key, given_here)
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
    """Draw sequences with all logits computed anew for each value: those of `queued`.

    Args:
      logits_fn: values `[B, T]` -> logits `[B, T, K]`, those of a step from the values
        before it only.
      key: each step draws with a key of its own.
      shape: `(B, T)`.
      adjust: logits `[B, K]` of a step -> those to draw from.
    """
    batch, length = shape
    free = jnp.full((batch,), FREE, jnp.int32)

    def draw(values, inputs):
        step, key = inputs
        here = lax.dynamic_index_in_dim(logits_fn(values), step, axis=1, keepdims=False)
        return values.at[:, step].set(choose(adjust, here, key, free)), None

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
    """Go through sequences in order, and do at each step what `step` says.

    Args:
      network: says what to compute, `params` with which parameters.
      params: the network's.
      step: from the logits of a step and its inputs to its values and its output.
      inputs: pytree of arrays `[T, ...]`.
      shape: `(B, T)`.
      condition: of these sequences.

    Returns the outputs, `[T, ...]`.
    """
    batch, length = shape
    network.check(shape, condition)

    def apply(method, *arguments):
        return network.apply(params, *arguments, method=method)

    # One block of steps for each of the features; without features one block is all.
    block = network.steps_per_feature if network.feature_channels else length
    guides = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), apply("guides", condition))
    count = -(-length // block)
    steps = jnp.arange(count * block).reshape(count, block)
    spare = count * block - length

    def in_blocks(x):
        padded = jnp.concatenate([x, jnp.repeat(x[-1:], spare, axis=0)]) if spare else x
        return padded.reshape(count, block, *x.shape[1:])

    def one_block(carry, of_block):
        number_of_steps, of_steps, guides = of_block

        def one_step(carry, of_step):
            queues, previous = carry
            number, step_inputs = of_step
            queues, logits = apply("next_value", queues, number, previous, guides)
            value, output = step(logits, step_inputs)
            return (queues, apply("embed", value)), output

        return lax.scan(one_step, carry, (number_of_steps, of_steps))

    queues = tuple(
        jnp.zeros((dilation + 1, batch, network.units), network.dtype)
        for dilation in network.dilations
    )
    previous = jnp.zeros((batch, network.units), network.dtype)
    _, outputs = lax.scan(
        one_block,
        (queues, previous),
        (steps, jax.tree.map(in_blocks, inputs), guides),
    )
    return jax.tree.map(
        lambda x: x.reshape(count * block, *x.shape[2:])[:length], outputs
    )
