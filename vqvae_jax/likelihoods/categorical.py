"""Softmax likelihood over the 256 values."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, Shaped, UInt8

from vqvae_jax.likelihoods.base import NUM_VALUES, per_channel, require_fitting


@dataclasses.dataclass(frozen=True)
class Categorical:
    """A softmax over the 256 values of each channel, the paper's p(x|z) on CIFAR-10."""

    is_discrete: ClassVar[bool] = True

    def num_outputs(self, channels: int) -> int:
        """Return the number of outputs, 256 logits per channel."""
        return NUM_VALUES * channels

    def log_prob(
        self, outputs: Float[Array, "B H W P"], images: Shaped[Array, "B H W C"]
    ) -> Float[Array, "B H W C"]:
        """Return the log-probability of each channel of uint8 images in nats.

        Raises:
          UserError: the images are not uint8, or the outputs have the wrong shape.
        """
        require_fitting(self, outputs, images)
        logits = per_channel(outputs, NUM_VALUES)
        # Otherwise a large common offset would cost the differences their precision.
        logits -= jax.lax.stop_gradient(logits.max(axis=-1, keepdims=True))
        # Select by a masked sum over the values: its gradient fuses with the softmax's,
        # while the gradient of indexing would be a separate scatter.
        value = jnp.arange(NUM_VALUES, dtype=jnp.int32)[None, None, None, None]
        is_chosen = value == images.astype(jnp.int32)[..., None]
        chosen = jnp.sum(jnp.where(is_chosen, logits, 0.0), axis=-1)
        return chosen - jnp.log(jnp.sum(jnp.exp(logits), axis=-1))

    def mean(self, outputs: Float[Array, "B H W P"]) -> Float[Array, "B H W C"]:
        """Return the expected value of each channel, in 0 ... 255."""
        probs = jax.nn.softmax(per_channel(outputs, NUM_VALUES), axis=-1)
        values = jnp.arange(NUM_VALUES, dtype=jnp.float32)
        return jnp.sum(probs * values[None, None, None, None], axis=-1)

    def sample(
        self, key: PRNGKeyArray, outputs: Float[Array, "B H W P"]
    ) -> UInt8[Array, "B H W C"]:
        """Sample each channel independently."""
        logits = per_channel(outputs, NUM_VALUES)
        return jax.random.categorical(key, logits, axis=-1).astype(jnp.uint8)
