"""What a likelihood p(x|z) is, and the scale on which decoders work."""

from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from vqvae_jax.runtime.arrays import AnyArray
from vqvae_jax.runtime.errors import require

NUM_VALUES = 256


@runtime_checkable
class Likelihood(Protocol):
    """What a model asks of p(x|z), a distribution over the channels of an image.

    Given z the channels are independent of each other. `outputs` are the decoder's,
    `[B, H, W, C*P]` for images `[B, H, W, C]` and P = `num_outputs`: P consecutive
    channels belong to one channel of the image.
    """

    @property
    def num_outputs(self) -> int:
        """P, the decoder's outputs for each channel of the image."""

    @property
    def is_discrete(self) -> bool:
        """Whether `log_prob` is that of a distribution over the 256 values.

        Only then it may become bits/dim.
        """

    def log_prob(self, outputs, images):
        """Return nats, `[B, H, W, C]`: log p of each channel of each pixel.

        Raises:
          UserError: the images are not uint8, or the outputs are of another shape.
        """

    def mean(self, outputs):
        """Return the expected value in 0 ... 255, `[B, H, W, C]` float32."""

    def sample(self, key, outputs):
        """Draw an image, `[B, H, W, C]` uint8."""


def scaled(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Map 0 ... 255 to -1 ... 1."""
    return x / ((NUM_VALUES - 1) / 2) - 1.0


def unscaled(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Map -1 ... 1 to 0 ... 255, and what is further out to the ends."""
    return jnp.clip((x + 1.0) * ((NUM_VALUES - 1) / 2), 0, NUM_VALUES - 1)


def to_uint8(x: Float[Array, "*shape"]) -> Shaped[Array, "*shape"]:
    """Round values in 0 ... 255, as `unscaled` returns them, to uint8."""
    return jnp.round(x).astype(jnp.uint8)


def log_p_of(
    logits: Float[Array, "*places K"], values: Int[Array, "*places"]
) -> Float[Array, "*places"]:
    """Return log p in nats of values in 0 ... K - 1 under a softmax."""
    chosen = jnp.take_along_axis(logits, values[..., None], axis=-1)[..., 0]
    return chosen - jax.nn.logsumexp(logits, axis=-1)


def per_channel(
    outputs: Float[Array, "B H W CP"], num_outputs: int
) -> Float[Array, "B H W C P"]:
    """Give each channel of the image its own outputs, as float32.

    Raises:
      UserError: the channels are no multiple of `num_outputs`.
    """
    require(
        outputs.shape[-1] % num_outputs == 0,
        f"the decoder's channels must be a multiple of the likelihood's "
        f"{num_outputs} outputs, but its output has shape {outputs.shape}",
    )
    return outputs.astype(jnp.float32).reshape(*outputs.shape[:-1], -1, num_outputs)


def require_uint8(images: Shaped[AnyArray, "*shape"]) -> None:
    """Raise UserError unless images hold the 256 values as uint8.

    A distribution over integers would take images that are scaled already, or of 16
    bits, without a word, and its bits/dim would mean nothing.
    """
    require(
        images.dtype == jnp.uint8,
        f"images must be uint8 (0 ... {NUM_VALUES - 1}, not scaled), got "
        f"{images.dtype}",
    )


def require_fitting(
    outputs: Float[Array, "B H W CP"],
    images: Shaped[AnyArray, "B H W C"],
    num_outputs: int,
) -> None:
    """Raise UserError unless images are uint8 and each channel has its outputs.

    One channel would be broadcast over three without a word.
    """
    require_uint8(images)
    *rest, channels = images.shape
    expected = (*rest, channels * num_outputs)
    require(
        outputs.shape == expected,
        f"the decoder's output for images of shape {images.shape} must have shape "
        f"{expected}, got {outputs.shape}",
    )
