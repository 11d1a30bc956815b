"""p(x|z) over images of 256 values a channel: log-probability, mean and sample.

Each likelihood reads the decoder's output, `num_outputs` channels for every channel of
the image, and is a distribution over the 256 integers (its probabilities sum to 1), so
that its log-probability is a part of bits/dim. `MeanSquaredError` alone is a density:
it trains the paper's ImageNet and Lab models and never becomes bits/dim.
"""

import dataclasses
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, UInt8

from vqvae_jax.errors import UserError, require

NUM_VALUES = 256


@runtime_checkable
class Likelihood(Protocol):
    """What a model asks of p(x|z)."""

    @property
    def num_outputs(self) -> int:
        """Decoder outputs for each channel of the image."""

    @property
    def is_discrete(self) -> bool:
        """Whether `log_prob` is that of a distribution over the 256 values."""

    def log_prob(self, outputs, images):
        """Return nats, `[B, H, W, C]`: log p of each channel of each pixel."""

    def mean(self, outputs):
        """Return the expected value in 0 ... 255, `[B, H, W, C]` float32."""

    def sample(self, key, outputs):
        """Draw an image, `[B, H, W, C]` uint8."""


@dataclasses.dataclass(frozen=True)
class Categorical:
    """A softmax over the 256 values of each channel: the paper's on CIFAR-10."""

    num_outputs: int = NUM_VALUES
    is_discrete: bool = True

    def log_prob(
        self, outputs: Float[Array, "B H W CP"], images: UInt8[Array, "B H W C"]
    ) -> Float[Array, "B H W C"]:
        """Return nats of each channel."""
        logits = _per_channel(outputs, self.num_outputs)
        # Else a large common offset would take the digits of their differences.
        logits -= jax.lax.stop_gradient(logits.max(axis=-1, keepdims=True))
        values = images.astype(jnp.int32)[..., None]
        chosen = jnp.take_along_axis(logits, values, axis=-1)[..., 0]
        return chosen - jax.nn.logsumexp(logits, axis=-1)

    def mean(self, outputs: Float[Array, "B H W CP"]) -> Float[Array, "B H W C"]:
        """Return the expected value of each channel, in 0 ... 255."""
        probs = jax.nn.softmax(_per_channel(outputs, self.num_outputs), axis=-1)
        return jnp.sum(probs * _values(probs.ndim), axis=-1)

    def sample(
        self, key: PRNGKeyArray, outputs: Float[Array, "B H W CP"]
    ) -> UInt8[Array, "B H W C"]:
        """Draw each channel on its own."""
        logits = _per_channel(outputs, self.num_outputs)
        return jax.random.categorical(key, logits, axis=-1).astype(jnp.uint8)


@dataclasses.dataclass(frozen=True)
class DiscretizedGaussian:
    """A Gaussian with a learned scale, integrated over the 256 values' unit bins.

    The first and last bin reach to infinity, so the 256 probabilities sum to 1. The
    decoder's two outputs are the mean, on a scale where -1 ... 1 spans the values, and
    the logarithm of the standard deviation on that scale. Both are clipped: further out
    float32 cannot tell the ends of a bin apart.
    """

    mean_range: tuple[float, float] = (-100.0, 100.0)
    log_scale_range: tuple[float, float] = (-6.0, 3.0)
    num_outputs: int = 2
    is_discrete: bool = True

    def log_prob(
        self, outputs: Float[Array, "B H W CP"], images: UInt8[Array, "B H W C"]
    ) -> Float[Array, "B H W C"]:
        """Return nats of each channel."""
        mean, scale = self._parameters(outputs)
        x = images.astype(jnp.float32)
        lower = (scaled(x - 0.5) - mean) / scale
        upper = (scaled(x + 0.5) - mean) / scale
        inner = _log_normal_interval(lower, upper)
        first = _log_ndtr(upper)
        last = _log_ndtr(-lower)
        return jnp.where(x == 0, first, jnp.where(x == NUM_VALUES - 1, last, inner))

    def mean(self, outputs: Float[Array, "B H W CP"]) -> Float[Array, "B H W C"]:
        """Return the Gaussian's mean, clipped to 0 ... 255."""
        return _unscaled(self._parameters(outputs)[0])

    def sample(
        self, key: PRNGKeyArray, outputs: Float[Array, "B H W CP"]
    ) -> UInt8[Array, "B H W C"]:
        """Draw each channel on its own."""
        mean, scale = self._parameters(outputs)
        draw = mean + scale * jax.random.normal(key, mean.shape)
        return jnp.round(_unscaled(draw)).astype(jnp.uint8)

    def _parameters(self, outputs):
        mean, log_scale = jnp.moveaxis(_per_channel(outputs, self.num_outputs), -1, 0)
        scale = jnp.exp(jnp.clip(log_scale, *self.log_scale_range))
        return jnp.clip(mean, *self.mean_range), scale


@dataclasses.dataclass(frozen=True)
class MeanSquaredError:
    """A Gaussian density of fixed scale: training by squared error, no bits/dim.

    `log_prob` is -(x - mean)^2 / (2 scale^2) with x on a scale where -1 ... 1 spans the
    256 values, without the constant. The default scale is about the spread of natural
    images, so that the squared error is measured against their variance.
    """

    scale: float = 0.5
    num_outputs: int = 1
    is_discrete: bool = False

    def log_prob(
        self, outputs: Float[Array, "B H W C"], images: UInt8[Array, "B H W C"]
    ) -> Float[Array, "B H W C"]:
        """Return the density's logarithm for each channel, up to a constant."""
        error = scaled(images.astype(jnp.float32)) - outputs.astype(jnp.float32)
        return -0.5 * jnp.square(error / self.scale)

    def mean(self, outputs: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        """Return the decoder's output, clipped to 0 ... 255."""
        return _unscaled(outputs.astype(jnp.float32))

    def sample(
        self, key: PRNGKeyArray, outputs: Float[Array, "B H W C"]
    ) -> UInt8[Array, "B H W C"]:
        """Round the mean: noise of the fixed scale would say nothing about x."""
        del key
        return jnp.round(self.mean(outputs)).astype(jnp.uint8)


_BY_NAME = {
    "categorical": Categorical,
    "gaussian": DiscretizedGaussian,
    "mse": MeanSquaredError,
}


def by_name(name: str) -> Likelihood:
    """Return the likelihood a config names.

    Raises:
      UserError: there is none of that name; the message lists those there are.
    """
    require(
        name in _BY_NAME,
        f"likelihood {name!r} does not exist; choose one of {', '.join(_BY_NAME)}",
    )
    return _BY_NAME[name]()


def _per_channel(
    outputs: Float[Array, "B H W CP"], num_outputs: int
) -> Float[Array, "B H W C P"]:
    if outputs.shape[-1] % num_outputs:
        raise UserError(
            f"the decoder's channels must be a multiple of the likelihood's "
            f"{num_outputs} outputs, but its output has shape {outputs.shape}"
        )
    return outputs.astype(jnp.float32).reshape(*outputs.shape[:-1], -1, num_outputs)


def _values(ndim: int) -> Float[Array, "..."]:
    return jnp.arange(NUM_VALUES, dtype=jnp.float32).reshape((1,) * (ndim - 1) + (-1,))


def scaled(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Map 0 ... 255 to -1 ... 1."""
    return x / ((NUM_VALUES - 1) / 2) - 1.0


def _unscaled(x):
    return jnp.clip((x + 1.0) * ((NUM_VALUES - 1) / 2), 0, NUM_VALUES - 1)


def _log_normal_interval(lower, upper):
    """Return log(Phi(upper) - Phi(lower)) without cancellation in either tail."""
    # By symmetry an interval in the right tail is one in the left tail, where
    # _log_ndtr keeps its precision.
    right = lower > 0
    low = jnp.where(right, -upper, lower)
    high = jnp.where(right, -lower, upper)
    log_high, log_low = _log_ndtr(high), _log_ndtr(low)
    return log_high + jnp.log1p(-jnp.exp(log_low - log_high))


@jax.custom_jvp
def _log_ndtr(x):
    """Return log Phi(x), with a derivative that holds in the left tail too."""
    return jax.scipy.special.log_ndtr(x)


@_log_ndtr.defjvp
def _log_ndtr_jvp(primals, tangents):
    (x,), (x_dot,) = primals, tangents
    log_p = _log_ndtr(x)
    # The derivative is phi(x) / Phi(x). JAX takes the exponential of a difference of
    # logarithms, which grow as x^2 / 2: at x = -10 000 nothing of it is right. There
    # the asymptotic series of the ratio is exact to float32.
    near, far = jnp.maximum(x, -10.0), jnp.minimum(x, -10.0)
    ratio = jnp.exp(jax.scipy.stats.norm.logpdf(near) - log_p)
    series = -far - 1 / far + 2 / far**3
    return log_p, jnp.where(x > -10.0, ratio, series) * x_dot
