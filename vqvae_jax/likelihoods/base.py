"""The likelihood protocol, and the scale of decoder outputs."""

from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

from vqvae_jax.runtime.arrays import AnyArray
from vqvae_jax.runtime.errors import require

NUM_VALUES = 256


@runtime_checkable
class Likelihood(Protocol):
    """A distribution p(x|z) over images, whose pixels are independent given z.

    `outputs` are the decoder's, `[B, H, W, P]` with P = `num_outputs(C)` for images
    `[B, H, W, C]`.
    """

    def num_outputs(self, channels: int) -> int:
        """Return P, the decoder outputs for each pixel of C channels."""

    @property
    def is_discrete(self) -> bool:
        """Whether p(x|z) is a distribution over the 256 values.

        Only such a `log_prob` converts to bits/dim.
        """

    def log_prob(self, outputs, images):
        """Return log p of each channel of each pixel in nats, `[B, H, W, C]`.

        Where channels depend on each other, each is given those before it.

        Raises:
          UserError: the images are not uint8, or the outputs have the wrong shape.
        """

    def mean(self, outputs):
        """Return the expected value in 0 ... 255, `[B, H, W, C]` float32."""

    def sample(self, key, outputs):
        """Sample an image, `[B, H, W, C]` uint8."""


def scaled(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Map 0 ... 255 to -1 ... 1."""
    return x / ((NUM_VALUES - 1) / 2) - 1.0


def unscaled(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Map -1 ... 1 to 0 ... 255, and clip values beyond."""
    return jnp.clip((x + 1.0) * ((NUM_VALUES - 1) / 2), 0, NUM_VALUES - 1)


def to_uint8(x: Float[Array, "*shape"]) -> Shaped[Array, "*shape"]:
    """Round values in 0 ... 255, as `unscaled` returns them, to uint8."""
    return jnp.round(x).astype(jnp.uint8)


def log_p_of(
    logits: Float[Array, "*batch K"], values: Int[Array, "*batch"]
) -> Float[Array, "*batch"]:
    """Return the log-probability in nats of values in 0 ... K - 1 under a softmax."""
    chosen = jnp.take_along_axis(logits, values[..., None], axis=-1)[..., 0]
    return chosen - jax.nn.logsumexp(logits, axis=-1)


def per_channel(
    outputs: Float[Array, "B H W CQ"], each: int
) -> Float[Array, "B H W C Q"]:
    """Reshape float32 outputs to Q = `each` consecutive ones per image channel.

    Raises:
      UserError: the number of outputs is not a multiple of Q.
    """
    require(
        outputs.shape[-1] % each == 0,
        f"the decoder's channels must be a multiple of the likelihood's "
        f"{each} outputs, but its output has shape {outputs.shape}",
    )
    return outputs.astype(jnp.float32).reshape(*outputs.shape[:-1], -1, each)


def require_uint8(images: Shaped[AnyArray, "*shape"]) -> None:
    """Raise UserError unless images are uint8.

    A distribution over integers would silently accept scaled or 16-bit images and
    return meaningless bits/dim.
    """
    require(
        images.dtype == jnp.uint8,
        f"images must be uint8 (0 ... {NUM_VALUES - 1}, not scaled), got "
        f"{images.dtype}",
    )


def require_fitting(
    likelihood: Likelihood,
    outputs: Float[Array, "B H W P"],
    images: Shaped[AnyArray, "B H W C"],
) -> None:
    """Raise UserError unless images are uint8 and outputs have the matching shape.

    Otherwise one channel would silently broadcast over three.
    """
    require_uint8(images)
    *rest, channels = images.shape
    expected = (*rest, likelihood.num_outputs(channels))
    require(
        outputs.shape == expected,
        f"the decoder's output for images of shape {images.shape} must have shape "
        f"{expected}, got {outputs.shape}",
    )
