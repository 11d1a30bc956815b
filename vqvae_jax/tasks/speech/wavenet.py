"""WaveNet (van den Oord et al., 2016a) over sequences of categories.

One module serves as the decoder of speech, over 256 mu-law values, and as the prior
over a sequence of codes:

    p(x) = prod_t p(x_t | x_<t, condition).

The input is moved right by one step; each layer then sees its own step and the one
`dilation` steps before, so that the future is out of reach and no kernel is masked.

`__call__` computes the logits of a whole sequence at once. `next_value` computes the
same numbers one after the other, each layer from a queue of the steps that it still
sees: what `sampling.queued` walks through, at a cost that does not depend on how far
back the network sees.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, PRNGKeyArray

from vqvae_jax.networks.cell_decoder import gate
from vqvae_jax.runtime.errors import require


class SequenceCondition(NamedTuple):
    """What a sequence depends on besides itself; None for what is not given.

    labels: `[B]` int, a class each, as the speaker.
    features: `[B, N, M]`, each for the same number of steps; the last may have fewer.
    """

    labels: Int[Array, " B"] | None = None
    features: Float[Array, "B N M"] | None = None


UNCONDITIONAL = SequenceCondition()


class DilatedLayer(nn.Module):
    """A dilated causal convolution of two taps, gated, with residual and skip outputs.

    Attributes:
      units: channels of the residual path.
      skip_units: channels of the skip's output.
      dilation: steps between the taps.
      dropout: rate on the gates, active where a "dropout" key is given.
      dtype: compute dtype.
    """

    units: int
    skip_units: int
    dilation: int
    dropout: float
    dtype: DTypeLike

    def setup(self):
        """Make the layer's products."""
        gates = 2 * self.units
        # Together they are one kernel of two taps, and initialised as one. Joined
        # inputs or outputs would be copied, which costs more than the products.
        init = nn.initializers.variance_scaling(0.5, "fan_in", "truncated_normal")
        self.of_past = nn.Dense(
            gates, use_bias=False, kernel_init=init, dtype=self.dtype
        )
        self.of_present = nn.Dense(gates, kernel_init=init, dtype=self.dtype)
        self.of_labels = nn.Dense(gates, use_bias=False, dtype=self.dtype)
        self.of_features = nn.Dense(gates, use_bias=False, dtype=self.dtype)
        self.residual = nn.Dense(self.units, dtype=self.dtype)
        self.skip = nn.Dense(self.skip_units, dtype=self.dtype)
        self.drop = nn.Dropout(self.dropout)

    def guide(
        self,
        one_hot: Float[Array, "B S"] | None,
        features: Float[Array, "B N M"] | None,
    ) -> Float[Array, "B N F2"] | None:
        """Return what the condition adds to the gates, at the features' rate."""
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
        """Return the residual path's next values and the skip's, of any steps."""
        gates = self.of_past(past) + self.of_present(present)
        output = gate(gates if guide is None else gates + guide)
        output = self.drop(output, deterministic=not self.has_rng("dropout"))
        return present + self.residual(output), self.skip(output)


class WaveNet(nn.Module):
    """Logits of each value of a sequence from those before it.

    The speaker's one-hot vector and the features are projected into every layer; the
    features at their own rate, each then repeated for the steps that it stands for.

    Attributes:
      num_values: K, the categories.
      num_classes: labels to condition on, 0 for none.
      feature_channels: M, of features to condition on, 0 for none.
      steps_per_feature: values that each of the features is for.
      stacks: how often the dilations 1, 2, 4, ... are gone through.
      layers: dilations of a stack.
      units: channels of the residual path.
      skip_units: channels that the layers' outputs are summed in.
      dropout: rate on the gates, active where a "dropout" key is given.
      ordered: whether like values have like numbers, as samples of sound have and codes
        have not: their embeddings then start alike.
      dtype: compute dtype; parameters and logits are float32.
      remat: compute what lies inside layers again for the gradient of `__call__`
        instead of keeping it.
    """

    num_values: int = 256
    num_classes: int = 0
    feature_channels: int = 0
    steps_per_feature: int = 64
    stacks: int = 2
    layers: int = 10
    units: int = 64
    skip_units: int = 128
    dropout: float = 0.0
    ordered: bool = False
    dtype: DTypeLike = jnp.float32
    remat: bool = False

    @property
    def dilations(self) -> tuple[int, ...]:
        """The dilation of each layer."""
        return tuple(2**layer for layer in range(self.layers)) * self.stacks

    @property
    def receptive_field(self) -> int:
        """How many earlier values a value depends on."""
        return 1 + sum(self.dilations)

    def setup(self):
        """Make the layers that both forms share."""
        init = waves if self.ordered else nn.linear.default_embed_init
        self.embedding = nn.Embed(
            self.num_values, self.units, embedding_init=init, dtype=self.dtype
        )
        self.stack = [
            DilatedLayer(
                self.units, self.skip_units, dilation, self.dropout, self.dtype
            )
            for dilation in self.dilations
        ]
        self.hidden = nn.Dense(self.skip_units, dtype=self.dtype)
        self.to_logits = nn.Dense(
            self.num_values,
            # Untrained, all values are about equally likely.
            kernel_init=nn.initializers.variance_scaling(0.01, "fan_in", "normal"),
        )

    def __call__(
        self,
        values: Int[Array, "B T"],
        condition: SequenceCondition = UNCONDITIONAL,
    ) -> Float[Array, "B T K"]:
        """Return logits `[B, T, K]` float32 for values in 0 ... K-1.

        Raises:
          UserError: a part of the condition is missing, not wanted, or not of this
            batch and length.
        """
        self.check(values.shape, condition)
        batch, length = values.shape

        # All steps of all sequences are the rows of one matrix: on a CPU, products of
        # arrays with a batch, and their gradients most of all, take far longer.
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
        skip = jnp.zeros((batch * length, self.skip_units), self.dtype)
        for layer, guide in zip(self.stack, self.guides(condition), strict=True):
            x, output = over_sequence(layer, x, guide)
            skip = skip + output
        return self._logits(skip).reshape(batch, length, self.num_values)

    def embed(self, values: Int[Array, "*steps"]) -> Float[Array, "*steps F"]:
        """Return what the layers read of values."""
        return self.embedding(values)

    def guides(
        self, condition: SequenceCondition
    ) -> tuple[Float[Array, "B N F2"] | None, ...]:
        """Return what a condition adds to each layer, at the features' rate."""
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
        """Return the logits of a step.

        Args:
          queues: for each layer its input in this step and the `dilation` steps before,
            that of step t at place t modulo dilation + 1; zeros at first.
          step: t.
          previous: the embedded value of the step before, zeros for the first.
          guides: for each layer what the condition adds at this step.

        Returns the next queues and the logits.
        """
        x, next_queues = previous, []
        skip = jnp.zeros((previous.shape[0], self.skip_units), self.dtype)
        for layer, queue, guide in zip(self.stack, queues, guides, strict=True):
            places = layer.dilation + 1
            # Written before it is read: XLA copies a queue that is read first.
            queue = jax.lax.dynamic_update_index_in_dim(queue, x, step % places, 0)
            past = jax.lax.dynamic_index_in_dim(
                queue, (step + 1) % places, keepdims=False
            )
            next_queues.append(queue)
            x, output = layer(past, x, guide)
            skip = skip + output
        return tuple(next_queues), self._logits(skip)

    def check(self, shape: tuple[int, ...], condition: SequenceCondition) -> None:
        """Raise UserError unless values of a shape and a condition fit this network."""
        batch, length = shape
        labels, features = condition
        for name, given, size in (
            ("labels", labels, self.num_classes),
            ("features", features, self.feature_channels),
        ):
            require(
                (given is not None) == (size > 0),
                f"{name} are {'needed' if size else 'not wanted'}: the WaveNet was "
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
            f"for {self.steps_per_feature} of {length} values, got "
            f"{list(features.shape)}",
        )

    def _logits(self, skip):
        x = nn.relu(self.hidden(nn.relu(skip)))
        return self.to_logits(x.astype(jnp.float32))


def waves(
    key: PRNGKeyArray, shape: tuple[int, int], dtype: DTypeLike = jnp.float32
) -> Float[Array, "K F"]:
    """Return embeddings of ordered values that are near where the values are.

    Each channel is a wave over all values: the slowest has half a period, the fastest
    one for eight values. Together they tell both roughly and exactly where a value is.
    """
    num_values, units = shape
    periods = jnp.geomspace(0.5, max(0.5, num_values / 8), units)
    places = (jnp.arange(num_values) + 0.5) / num_values - 0.5
    phases = jax.random.uniform(key, (units,), maxval=2 * jnp.pi)
    angles = 2 * jnp.pi * periods[None] * places[:, None] + phases[None]
    return (jnp.sqrt(2.0) * jnp.sin(angles)).astype(dtype)


def delayed(x: Float[Array, "B T F"], steps: int) -> Float[Array, "B T F"]:
    """Move a sequence right, behind zeros; what leaves it on the right is lost."""
    return jnp.pad(x, ((0, 0), (steps, 0), (0, 0)))[:, : x.shape[1]]


def spread(
    features: Float[Array, "B N F"], steps: int, length: int
) -> Float[Array, "B T F"]:
    """Repeat each feature for its steps, and cut at the length; a single one is all."""
    if features.shape[1] == 1:
        return jnp.broadcast_to(features, (len(features), length, features.shape[2]))
    return jnp.repeat(features, steps, axis=1)[:, :length]
