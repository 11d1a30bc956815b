"""Discretized logistic mixture likelihoods (PixelCNN++).

Salimans, Karpathy, Chen and Kingma, *PixelCNN++*, 2017, section 2.1, equations 2 and 3.
`CoupledLogisticMixture` is theirs: one component for all channels of a pixel, and the
means of green and blue depend on the channels before them. In `LogisticMixture` the
channels of a pixel are independent given z, as for the other likelihoods.
"""

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
)
from vqvae_jax.runtime.errors import require

_LAST = NUM_VALUES - 1
_HALF = _LAST / 2
# At output 0, ten components of this log-scale cover the values evenly. Broader ones
# overlap, and all of them learn the same at first.
_LOG_SCALE_AT_0 = -2.0


@dataclasses.dataclass(frozen=True)
class _Mixture:
    """Options of both mixtures of M logistics.

    The logistics are integrated over the unit bins of the 256 values. The first and
    last bin extend to infinity, so the 256 probabilities sum to 1. Means and log-scales
    are outputs of the decoder on a scale where -1 ... 1 spans the values; both are
    clipped.

    Attributes:
      components: M, number of components.
      mean_range: range to which means are clipped.
      log_scale_range: range to which log-scales are clipped.
    """

    components: int = 10
    mean_range: tuple[float, float] = (-100.0, 100.0)
    log_scale_range: tuple[float, float] = (-7.0, 3.0)
    is_discrete: ClassVar[bool] = True

    def __post_init__(self):
        """Check the number of components."""
        require(
            self.components >= 1,
            f"components must be at least 1, got {self.components}",
        )

    def _means(self, mean):
        """Return clipped means, in units of the values.

        At output 0 they are spread evenly over the values: an untrained decoder outputs
        nearly the same for all components, which would otherwise get the same gradient.
        """
        spread = jnp.linspace(-1, 1, self.components + 2)[1:-1]
        mean = mean + spread[None, None, None, None]
        return (jnp.clip(mean, *self.mean_range) + 1.0) * _HALF

    def _scales(self, log_scale):
        """Return clipped scales, in units of the values."""
        log_scale = jnp.clip(log_scale + _LOG_SCALE_AT_0, *self.log_scale_range)
        return jnp.exp(log_scale + math.log(_HALF))


class LogisticMixture(_Mixture):
    """A mixture of M logistics for each channel.

    The decoder outputs 3 M values per channel: M logits of the components, M means and
    M log-scales.
    """

    def num_outputs(self, channels: int) -> int:
        """Return the number of outputs: a logit, mean and log-scale per component."""
        return 3 * self.components * channels

    def log_prob(
        self, outputs: Float[Array, "B H W P"], images: Shaped[Array, "B H W C"]
    ) -> Float[Array, "B H W C"]:
        """Return the log-probability of each channel of uint8 images in nats.

        Raises:
          UserError: the images are not uint8, or the outputs have the wrong shape.
        """
        require_fitting(self, outputs, images)
        log_pi, mean, scale = self._parameters(outputs)
        x = images.astype(jnp.float32)[..., None]
        return jax.nn.logsumexp(log_pi + _log_bin(x, mean, scale), axis=-1)

    def mean(self, outputs: Float[Array, "B H W P"]) -> Float[Array, "B H W C"]:
        """Return the expected value of each channel, in 0 ... 255.

        The mixture is clipped to 0 ... 255 but not rounded.
        """
        log_pi, mean, scale = self._parameters(outputs)
        return jnp.sum(jnp.exp(log_pi) * _clipped_mean(mean, scale), axis=-1)

    def sample(
        self, key: PRNGKeyArray, outputs: Float[Array, "B H W P"]
    ) -> UInt8[Array, "B H W C"]:
        """Sample a component, then a value, independently for each channel."""
        component_key, value_key = jax.random.split(key)
        log_pi, mean, scale = self._parameters(outputs)
        component = jax.random.categorical(component_key, log_pi, axis=-1)
        mean, scale = (_chosen(p, component) for p in (mean, scale))
        draw = mean + scale * jax.random.logistic(value_key, mean.shape)
        return to_uint8(jnp.clip(draw, 0, _LAST))

    def _parameters(self, outputs):
        """Return log pi, means and scales, `[B, H, W, C, M]`, in units of the values.

        In these units the distance to the edge of a bin is exact near the mean, where
        adjacent bins must agree on their shared edge.
        """
        channels = per_channel(outputs, 3 * self.components)
        logits, mean, log_scale = jnp.split(channels, 3, axis=-1)
        return jax.nn.log_softmax(logits), self._means(mean), self._scales(log_scale)


class CoupledLogisticMixture(_Mixture):
    """A mixture of M components, each a logistic per channel of a pixel (equation 3).

    A component's mean of green depends linearly on red, and that of blue on red and
    green. The decoder outputs, for C channels, M logits, then M (2 C + C (C - 1) / 2)
    values: M means and M log-scales per channel, and M coefficients for each pair of
    channels, which a tanh limits to -1 ... 1. For RGB that is 10 M.
    """

    def num_outputs(self, channels: int) -> int:
        """Return the number of outputs: 3 M for a grey image, 10 M for RGB."""
        pairs = channels * (channels - 1) // 2
        return self.components * (1 + 2 * channels + pairs)

    def log_prob(
        self, outputs: Float[Array, "B H W P"], images: Shaped[Array, "B H W C"]
    ) -> Float[Array, "B H W C"]:
        """Return log p of each channel given those before it, in nats.

        Raises:
          UserError: the images are not uint8, or the outputs have the wrong shape.
        """
        require_fitting(self, outputs, images)
        x = images.astype(jnp.float32)[..., None]
        log_pi, mean, scale, pairs = self._parameters(outputs, images.shape[-1])
        before = scaled(x)
        means = [
            self._mean(mean, pairs, channel, before) for channel in range(x.shape[-2])
        ]
        log_p = _log_bin(x, jnp.stack(means, axis=-2), scale)
        # log p of channels 1 ... c, whose differences are those given channels before.
        joint = log_pi[..., None, :] + jnp.cumsum(log_p, axis=-2)
        total = jax.nn.logsumexp(joint, axis=-1)
        return jnp.diff(total, prepend=jnp.zeros_like(total[..., :1]), axis=-1)

    def mean(self, outputs: Float[Array, "B H W P"]) -> Float[Array, "B H W C"]:
        """Return the expected value of each channel, in 0 ... 255.

        A component's mean of green is that at its mean of red, likewise blue: the
        spread of red is ignored where green is clipped to 0 ... 255. Values are not
        rounded.
        """
        channels = self._channels(outputs)
        log_pi, mean, scale, pairs = self._parameters(outputs, channels)
        of_components = jnp.zeros_like(mean)
        for channel in range(channels):
            shifted = self._mean(mean, pairs, channel, scaled(of_components))
            value = _clipped_mean(shifted, scale[..., channel, :])
            of_components = of_components.at[..., channel, :].set(value)
        return jnp.sum(jnp.exp(log_pi)[..., None, :] * of_components, axis=-1)

    def sample(
        self, key: PRNGKeyArray, outputs: Float[Array, "B H W P"]
    ) -> UInt8[Array, "B H W C"]:
        """Sample a component for each pixel, then its channels in order."""
        component_key, value_key = jax.random.split(key)
        channels = self._channels(outputs)
        log_pi, mean, scale, pairs = self._parameters(outputs, channels)
        component = jax.random.categorical(component_key, log_pi, axis=-1)
        mean, scale, pairs = (
            _chosen(p, component[..., None])[..., None] for p in (mean, scale, pairs)
        )
        noise = jax.random.logistic(value_key, mean.shape)
        x = jnp.zeros_like(mean)
        for channel in range(channels):
            shifted = self._mean(mean, pairs, channel, scaled(x))
            draw = shifted + scale[..., channel, :] * noise[..., channel, :]
            # The next channel depends on the integer.
            value = jnp.round(jnp.clip(draw, 0, _LAST))
            x = x.at[..., channel, :].set(value)
        return to_uint8(x[..., 0])

    def _channels(self, outputs) -> int:
        """Return C."""
        channels = 1
        while self.num_outputs(channels) < outputs.shape[-1]:
            channels += 1
        require(
            self.num_outputs(channels) == outputs.shape[-1],
            f"the decoder's output for {self.components} coupled components must have "
            f"{self.num_outputs(1)} channels for a grey or {self.num_outputs(3)} for "
            f"an RGB image, but its shape is {outputs.shape}",
        )
        return channels

    def _parameters(self, outputs, channels: int):
        """Return log pi `[B, H, W, M]`; means, scales, coefficients `[B, H, W, _, M]`.

        Means (those of a pixel whose earlier channels are mid-grey) and scales are in
        units of the values, as in `LogisticMixture`.
        """
        each = per_channel(outputs, self.components)
        means = each[..., 1 : 1 + channels, :]
        log_scales = each[..., 1 + channels : 1 + 2 * channels, :]
        pairs = jnp.tanh(each[..., 1 + 2 * channels :, :])
        mean = self._means(means)
        return (
            jax.nn.log_softmax(each[..., 0, :]),
            mean,
            self._scales(log_scales),
            pairs,
        )

    @staticmethod
    def _mean(mean, pairs, channel: int, before):
        """Return the means of a channel, `[B, H, W, M]`, given all before it.

        `before` are channels on the scale where -1 ... 1 spans the values.
        """
        first = channel * (channel - 1) // 2
        shift = sum(
            pairs[..., first + other, :] * before[..., other, :]
            for other in range(channel)
        )
        return mean[..., channel, :] + _HALF * shift


def _log_bin(x, mean, scale):
    """Return log(F(x + 1/2) - F(x - 1/2)) of logistics; to infinity at both ends.

    With u and l the ends of the bin, sigma(u) - sigma(l) is
    sigma(u) sigma(-l) (1 - exp(l - u)), which never cancels, and u - l is the bin's
    width 1 / scale. Written as a sum of minima and one logarithm of a ratio in 0 ... 1,
    which costs four exponentials and a logarithm.
    """
    u = (x + 0.5 - mean) / scale
    l = (x - 0.5 - mean) / scale  # noqa: E741
    is_first, is_last = x == 0, x == _LAST
    below = jnp.where(is_last, 0.0, jnp.minimum(u, 0))
    above = jnp.where(is_first, 0.0, jnp.minimum(-l, 0))
    one_below = jnp.where(is_last, 1.0, 1 + jnp.exp(-jnp.abs(u)))
    one_above = jnp.where(is_first, 1.0, 1 + jnp.exp(-jnp.abs(l)))
    inside = jnp.where(is_first | is_last, 1.0, -jnp.expm1(-1 / scale))
    return below + above + jnp.log(inside / (one_below * one_above))


def _clipped_mean(mean, scale):
    """Return the expected value of logistics that are clipped to 0 ... 255."""
    # E[X] is the integral of p(X > x) over 0 ... 255.
    above_first = jax.nn.softplus(mean / scale)
    above_last = jax.nn.softplus((mean - _LAST) / scale)
    return jnp.clip(scale * (above_first - above_last), 0, _LAST)


def _chosen(parameters, component):
    """Return the parameters of one component, without the last axis."""
    return jnp.take_along_axis(parameters, component[..., None], axis=-1)[..., 0]
