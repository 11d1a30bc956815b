"""Gaussian likelihoods: discretized over the 256 values, and as a density."""

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, Shaped, UInt8

from vqvae_jax.likelihoods.base import (
    NUM_VALUES,
    per_channel,
    require_fitting,
    scaled,
    to_uint8,
    unscaled,
)
from vqvae_jax.runtime.errors import require


@dataclasses.dataclass(frozen=True)
class DiscretizedGaussian:
    """A Gaussian integrated over the unit bins of the 256 values.

    The first and last bin extend to infinity, so the 256 probabilities sum to 1. The
    decoder outputs the mean, on a scale where -1 ... 1 spans the values, and, for a
    learned scale, the logarithm of the standard deviation on that scale. Both are
    clipped: beyond their ranges float32 cannot separate the ends of a bin.

    Attributes:
      scale: the standard deviation of all channels; None learns one per channel.
      mean_range: range to which means are clipped.
      log_scale_range: range to which log-scales are clipped.
    """

    scale: float | None = None
    mean_range: tuple[float, float] = (-100.0, 100.0)
    log_scale_range: tuple[float, float] = (-6.0, 3.0)
    is_discrete: ClassVar[bool] = True

    def __post_init__(self):
        """Check the range of a fixed scale, which is not clipped."""
        low, high = map(math.exp, self.log_scale_range)
        require(
            self.scale is None or low <= self.scale <= high,
            f"scale must be in {low:.4f} ... {high:.1f}, got {self.scale}",
        )

    def num_outputs(self, channels: int) -> int:
        """Return the number of outputs, a mean and, if learned, a log-scale each."""
        return self._each * channels

    def log_prob(
        self, outputs: Float[Array, "B H W P"], images: Shaped[Array, "B H W C"]
    ) -> Float[Array, "B H W C"]:
        """Return the log-probability of each channel of uint8 images in nats.

        Raises:
          UserError: the images are not uint8, or the outputs have the wrong shape.
        """
        require_fitting(self, outputs, images)
        mean, scale = self._parameters(outputs)
        x = images.astype(jnp.float32)
        lower = (scaled(x - 0.5) - mean) / scale
        upper = (scaled(x + 0.5) - mean) / scale
        inner = _log_normal_interval(lower, upper)
        first = _log_ndtr(upper)
        last = _log_ndtr(-lower)
        return jnp.where(x == 0, first, jnp.where(x == NUM_VALUES - 1, last, inner))

    def mean(self, outputs: Float[Array, "B H W P"]) -> Float[Array, "B H W C"]:
        """Return the Gaussian's mean, clipped to 0 ... 255."""
        return unscaled(self._parameters(outputs)[0])

    def sample(
        self, key: PRNGKeyArray, outputs: Float[Array, "B H W P"]
    ) -> UInt8[Array, "B H W C"]:
        """Sample each channel independently."""
        mean, scale = self._parameters(outputs)
        draw = mean + scale * jax.random.normal(key, mean.shape)
        return to_uint8(unscaled(draw))

    @property
    def _each(self) -> int:
        return 2 if self.scale is None else 1

    def _parameters(self, outputs):
        """Return mean and standard deviation, `[B, H, W, C]`."""
        channels = per_channel(outputs, self._each)
        mean = jnp.clip(channels[..., 0], *self.mean_range)
        if self.scale is not None:
            return mean, jnp.full_like(mean, self.scale)
        return mean, jnp.exp(jnp.clip(channels[..., 1], *self.log_scale_range))


@dataclasses.dataclass(frozen=True)
class MeanSquaredError:
    """A Gaussian density of fixed scale, for training by squared error.

    `log_prob` is -(x - mean)^2 / (2 scale^2) with x on a scale where -1 ... 1 spans the
    256 values, without the constant. It has no bits/dim. The default scale is about the
    standard deviation of natural images, so the squared error is relative to their
    variance.
    """

    scale: float = 0.5
    is_discrete: ClassVar[bool] = False

    def num_outputs(self, channels: int) -> int:
        """Return the number of outputs, one mean per channel."""
        return channels

    def log_prob(
        self, outputs: Float[Array, "B H W P"], images: Shaped[Array, "B H W C"]
    ) -> Float[Array, "B H W C"]:
        """Return the log-density of each channel, up to a constant.

        Raises:
          UserError: the images are not uint8, or the outputs have the wrong shape.
        """
        require_fitting(self, outputs, images)
        error = scaled(images.astype(jnp.float32)) - outputs.astype(jnp.float32)
        return -0.5 * jnp.square(error / self.scale)

    def mean(self, outputs: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        """Return the decoder's output, clipped to 0 ... 255."""
        return unscaled(outputs.astype(jnp.float32))

    def sample(
        self, key: PRNGKeyArray, outputs: Float[Array, "B H W C"]
    ) -> UInt8[Array, "B H W C"]:
        """Round the mean: noise of the fixed scale carries no information about x."""
        del key
        return to_uint8(self.mean(outputs))


def _log_normal_interval(lower, upper):
    """Return log(Phi(upper) - Phi(lower)) without cancellation in either tail."""
    # Mirror intervals in the right tail to the left tail, where _log_ndtr is precise.
    right = lower > 0
    low = jnp.where(right, -upper, lower)
    high = jnp.where(right, -lower, upper)
    log_high, log_low = _log_ndtr(high), _log_ndtr(low)
    return log_high + jnp.log1p(-jnp.exp(log_low - log_high))


@jax.custom_jvp
def _log_ndtr(x):
    """Return log Phi(x), with a derivative that is exact in the left tail too."""
    return jax.scipy.special.log_ndtr(x)


@_log_ndtr.defjvp
def _log_ndtr_jvp(primals, tangents):
    (x,), (x_dot,) = primals, tangents
    log_p = _log_ndtr(x)
    # The derivative is phi(x) / Phi(x). JAX takes the exponential of a difference of
    # logarithms, which grow as x^2 / 2: at x = -10 000 no digit of it is correct. There
    # the asymptotic series of the ratio is exact to float32; its next term is
    # 706 / far^9.
    near, far = jnp.maximum(x, -10.0), jnp.minimum(x, -10.0)
    ratio = jnp.exp(jax.scipy.stats.norm.logpdf(near) - log_p)
    r = 1 / jnp.square(far)
    series = -far - (1 - r * (2 - r * (10 - r * 74))) / far
    return log_p, jnp.where(x > -10.0, ratio, series) * x_dot
