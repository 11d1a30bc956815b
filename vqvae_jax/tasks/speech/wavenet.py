"""WaveNet (van den Oord et al., 2016a) over sequences of categorical values.

The same module is the speech decoder, over 256 mu-law values, and the prior over a
sequence of codes:

    p(x) = prod_t p(x_t | x_<t, condition).

The input is shifted right by one step. Each layer then reads its current step and the
one `dilation` steps earlier, so the network is causal without masked kernels.

`__call__` computes the logits of a whole sequence at once. `next_value` computes the
same logits step by step, each layer from a queue of the inputs it still needs (Paine et
al., *Fast WaveNet Generation Algorithm*, 2016). `queued` samples with it, at a cost per
step independent of the receptive field. The terms that a condition adds to the layers
are computed once per feature, before sampling.
"""

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, PRNGKeyArray

from vqvae_jax.networks.cell_decoder import gate
from vqvae_jax.options import GIVEN, DType
from vqvae_jax.runtime.errors import require
from vqvae_jax.sampling.categorical import FREE, Adjust, sample_categorical, truncated


class SequenceCondition(NamedTuple):
    """What sequences are conditioned on; None for an absent part.

    labels: `[B]` int, one class per sequence, such as the speaker.
    features: `[B, N, M]`, each for the same number of steps; the last can have fewer.
    """

    labels: Int[Array, " B"] | None = None
    features: Float[Array, "B N M"] | None = None


UNCONDITIONAL = SequenceCondition()

# (logits [B, K], inputs of a step) -> (values [B], output of the step).
Step = Callable[[Any, Any], tuple[Int[Array, " B"], Any]]


class DilatedLayer(nn.Module):
    """A gated dilated causal convolution of two taps, with residual and skip outputs.

    Attributes:
      channels: channels of the residual path.
      skip_channels: channels of the skip output.
      dilation: steps between the taps.
      dropout: rate on the gated output, active if a "dropout" key is given.
      dtype: compute dtype.
    """

    channels: int
    skip_channels: int
    dilation: int
    dropout: float
    dtype: DTypeLike

    def setup(self):
        """Create the projections."""
        gates = 2 * self.channels
        # Both taps form one kernel and are initialised as one. They are separate layers
        # because concatenating inputs or outputs would copy them, which costs more than
        # the matrix products.
        init = nn.initializers.variance_scaling(0.5, "fan_in", "truncated_normal")
        self.of_past = nn.Dense(
            gates, use_bias=False, kernel_init=init, dtype=self.dtype
        )
        self.of_present = nn.Dense(gates, kernel_init=init, dtype=self.dtype)
        self.of_labels = nn.Dense(gates, use_bias=False, dtype=self.dtype)
        self.of_features = nn.Dense(gates, use_bias=False, dtype=self.dtype)
        self.residual = nn.Dense(self.channels, dtype=self.dtype)
        self.skip = nn.Dense(self.skip_channels, dtype=self.dtype)
        self.drop = nn.Dropout(self.dropout)

    def guide(
        self,
        one_hot: Float[Array, "B S"] | None,
        features: Float[Array, "B N M"] | None,
    ) -> Float[Array, "B N F2"] | None:
        """Return the term the condition adds to the gates, at the features' rate."""
        parts = []
        if one_hot is not None:
            parts.append(self.of_labels(one_hot)[:, None])
        if features is not None:
            parts.append(self.of_features(features))
        return sum(parts[1:], parts[0]) if parts else None

    def __call__(
        self,
        past: Float[Array, "steps F"],
        present: Float[Array, "steps F"],
        guide: Float[Array, "steps F2"] | None,
    ) -> tuple[Float[Array, "steps F"], Float[Array, "steps S"]]:
        """Return the residual and skip outputs of any number of steps."""
        gates = self.of_past(past) + self.of_present(present)
        output = gate(gates if guide is None else gates + guide)
        output = self.drop(output, deterministic=not self.has_rng("dropout"))
        return present + self.residual(output), self.skip(output)


class WaveNet(nn.Module):
    """Predicts the logits of each value of a sequence from the earlier values.

    The one-hot label and the features are projected into every layer. Features are
    projected at their own rate, and the results repeated for `steps_per_feature` steps.

    Attributes:
      num_values: K, number of categories.
      num_classes: number of labels to condition on, 0 for none.
      feature_channels: M, channels of the features to condition on, 0 for none.
      steps_per_feature: steps that each feature conditions.
      stacks: number of repetitions of the dilations 1, 2, 4, ...
      layers: layers per stack.
      channels: channels of the residual path.
      skip_channels: channels of the summed skip outputs.
      dropout: rate on the gated outputs, active if a "dropout" PRNG key is given, as in
        training.
      ordered: whether neighbouring values are similar, as for audio samples but not for
        codes; if so, their embeddings are initialised to be similar.
      dtype: compute dtype; parameters and logits are float32.
      remat: recompute the activations inside layers for the gradient of `__call__`
        instead of storing them.
    """

    num_values: Annotated[int, GIVEN, ">= 1"] = 256
    num_classes: Annotated[int, GIVEN, ">= 0"] = 0
    feature_channels: Annotated[int, GIVEN, ">= 0"] = 0
    steps_per_feature: Annotated[int, GIVEN, ">= 1"] = 64
    stacks: Annotated[int, ">= 1", "<= 1000"] = 2
    layers: Annotated[int, ">= 1", "<= 1000"] = 10
    channels: Annotated[int, ">= 1"] = 64
    skip_channels: Annotated[int, ">= 1"] = 256
    dropout: Annotated[float, ">= 0", "< 1"] = 0.0
    ordered: Annotated[bool, GIVEN] = False
    dtype: DType = "float32"
    remat: bool = False

    @property
    def dilations(self) -> tuple[int, ...]:
        """The dilation of each layer."""
        return tuple(2**layer for layer in range(self.layers)) * self.stacks

    @property
    def receptive_field(self) -> int:
        """The number of earlier values that a value depends on."""
        return 1 + sum(self.dilations)

    def setup(self):
        """Create the layers, shared by `__call__` and `next_value`."""
        init = waves if self.ordered else nn.linear.default_embed_init
        self.embedding = nn.Embed(
            self.num_values, self.channels, embedding_init=init, dtype=self.dtype
        )
        self.stack = [
            DilatedLayer(
                self.channels, self.skip_channels, dilation, self.dropout, self.dtype
            )
            for dilation in self.dilations
        ]
        self.hidden = nn.Dense(self.skip_channels, dtype=self.dtype)
        self.to_logits = nn.Dense(
            self.num_values,
            # At initialisation all values are about equally likely.
            kernel_init=nn.initializers.variance_scaling(0.01, "fan_in", "normal"),
        )

    def __call__(
        self,
        values: Int[Array, "B T"],
        condition: SequenceCondition = UNCONDITIONAL,
    ) -> Float[Array, "B T K"]:
        """Return logits `[B, T, K]` float32 for values in 0 ... K-1.

        Raises:
          UserError: if a part of the condition is missing, unexpected, or does not
            match the batch size and length.
        """
        self.check(values.shape, condition)
        batch, length = values.shape

        # Flatten all steps of all sequences to the rows of one matrix: on CPU, batched
        # products and especially their gradients are much slower.
        def rows(x):
            return x.reshape(batch * length, -1)

        def later(x, steps):
            return rows(delayed(x.reshape(batch, length, -1), steps))

        def over_sequence(layer, x, guide):
            if guide is not None:
                guide = rows(spread(guide, self.steps_per_feature, length))
            return layer(later(x, layer.dilation), x, guide)

        if self.remat:
            over_sequence = nn.remat(over_sequence)
        x = later(rows(self.embed(values)), 1)
        skip = jnp.zeros((batch * length, self.skip_channels), self.dtype)
        for layer, guide in zip(self.stack, self.guides(condition), strict=True):
            x, output = over_sequence(layer, x, guide)
            skip = skip + output
        return self._logits(skip).reshape(batch, length, self.num_values)

    def embed(self, values: Int[Array, "*steps"]) -> Float[Array, "*steps F"]:
        """Return the embeddings of values, the input of the first layer."""
        return self.embedding(values)

    def guides(
        self, condition: SequenceCondition
    ) -> tuple[Float[Array, "B N F2"] | None, ...]:
        """Return the term a condition adds to each layer, at the features' rate."""
        one_hot, features = None, None
        if condition.labels is not None:
            one_hot = jax.nn.one_hot(
                condition.labels, self.num_classes, dtype=self.dtype
            )
        if condition.features is not None:
            features = condition.features.astype(self.dtype)
        return tuple(layer.guide(one_hot, features) for layer in self.stack)

    def next_value(
        self,
        queues: tuple[Float[Array, "_ B F"], ...],
        step: Int[Array, ""],
        previous: Float[Array, "B F"],
        guides: tuple[Float[Array, "B F2"] | None, ...],
    ) -> tuple[tuple, Float[Array, "B K"]]:
        """Return the logits of one step.

        Args:
          queues: for each layer, its inputs at this step and the `dilation` steps
            before; step t is at index t modulo dilation + 1. Initially zeros.
          step: t.
          previous: embedding of the previous value, zeros for the first step.
          guides: for each layer, the term the condition adds at this step.

        Returns:
          The next queues and the logits.
        """
        x, next_queues = previous, []
        skip = jnp.zeros((previous.shape[0], self.skip_channels), self.dtype)
        for layer, queue, guide in zip(self.stack, queues, guides, strict=True):
            size = layer.dilation + 1
            # Write before reading: XLA copies a queue that is read first.
            queue = lax.dynamic_update_index_in_dim(queue, x, step % size, 0)
            past = lax.dynamic_index_in_dim(queue, (step + 1) % size, keepdims=False)
            next_queues.append(queue)
            x, output = layer(past, x, guide)
            skip = skip + output
        return tuple(next_queues), self._logits(skip)

    def check(self, shape: tuple[int, ...], condition: SequenceCondition) -> None:
        """Raise UserError unless the condition fits the network and `shape`."""
        batch, length = shape
        labels, features = condition
        for name, given, size in (
            ("labels", labels, self.num_classes),
            ("features", features, self.feature_channels),
        ):
            require(
                (given is not None) == (size > 0),
                f"{name} are {'needed' if size else 'unexpected'}: the WaveNet was "
                f"built for {size} {'classes' if name == 'labels' else 'channels'}",
            )
        require(
            labels is None or labels.shape == (batch,),
            f"labels must have shape [{batch}], got {getattr(labels, 'shape', None)}",
        )
        if features is None:
            return
        count = -(-length // self.steps_per_feature)
        require(
            features.shape == (batch, count, self.feature_channels),
            f"features must have shape {[batch, count, self.feature_channels]}, one "
            f"per {self.steps_per_feature} of {length} values, got "
            f"{list(features.shape)}",
        )

    def _logits(self, skip):
        x = nn.relu(self.hidden(nn.relu(skip)))
        return self.to_logits(x.astype(jnp.float32))


def waves(
    key: PRNGKeyArray, shape: tuple[int, int], dtype: DTypeLike = jnp.float32
) -> Float[Array, "K F"]:
    """Initialise embeddings of ordered values, so that near values are similar.

    Each channel is a sine over all values: the slowest has half a period, the fastest
    one period per eight values. Together they encode values coarsely and exactly.
    """
    num_values, channels = shape
    periods = jnp.geomspace(0.5, max(0.5, num_values / 8), channels)
    positions = (jnp.arange(num_values) + 0.5) / num_values - 0.5
    phases = jax.random.uniform(key, (channels,), maxval=2 * jnp.pi)
    angles = 2 * jnp.pi * periods[None] * positions[:, None] + phases[None]
    return (jnp.sqrt(2.0) * jnp.sin(angles)).astype(dtype)


def delayed(x: Float[Array, "B T F"], steps: int) -> Float[Array, "B T F"]:
    """Shift sequences right by `steps`, padding with zeros and dropping the end."""
    return jnp.pad(x, ((0, 0), (steps, 0), (0, 0)))[:, : x.shape[1]]


def spread(
    features: Float[Array, "B N F"], steps: int, length: int
) -> Float[Array, "B T F"]:
    """Repeat each feature `steps` times, cut to `length`; broadcast a single one."""
    if features.shape[1] == 1:
        return jnp.broadcast_to(features, (len(features), length, features.shape[2]))
    return jnp.repeat(features, steps, axis=1)[:, :length]


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
