"""Discretized logistic mixture likelihood (PixelCNN++).

Salimans, Karpathy, Chen and Kingma, *PixelCNN++*, 2017, section 2.1, equation 2. There
the means of green and blue also depend on red and green; here the channels of a pixel
are independent given z, as for the other likelihoods.
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
    to_uint8,
)
from vqvae_jax.runtime.errors import require

_HALF = (NUM_VALUES - 1) / 2


@dataclasses.dataclass(frozen=True)
class LogisticMixture:
    """A mixture of M logistics integrated over the unit bins of the 256 values.

    The first and last bin extend to infinity, so the 256 probabilities sum to 1. The
    decoder outputs 3 M values per channel: M logits of the components, M means on a
    scale where -1 ... 1 spans the values, and the logarithms of M scales of the
    logistics, on that same scale. Means and log-scales are clipped.

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

    @property
    def num_outputs(self) -> int:
        """The number of outputs, a logit, mean and log-scale per component."""
        return 3 * self.components

    def log_prob(
        self, outputs: Float[Array, "B H W CP"], images: Shaped[Array, "B H W C"]
    ) -> Float[Array, "B H W C"]:
        """Return the log-probability of each channel of uint8 images in nats.

        Raises:
          UserError: the images are not uint8, or the outputs have the wrong shape.
        """
        require_fitting(outputs, images, self.num_outputs)
        log_pi, mean, scale = self._parameters(outputs)
        x = images.astype(jnp.float32)[..., None]
        upper = (x + 0.5 - mean) / scale
        lower = (x - 0.5 - mean) / scale
        log_below = jax.nn.log_sigmoid(upper)
        log_above = jax.nn.log_sigmoid(-lower)
        # sigma(u) - sigma(l) = sigma(u) sigma(-l) (1 - exp(l - u)) never cancels, and
        # u - l is the bin's width, 1 / scale.
        inner = log_below + log_above + jnp.log(-jnp.expm1(-1 / scale))
        log_p = jnp.where(
            x == 0, log_below, jnp.where(x == NUM_VALUES - 1, log_above, inner)
        )
        return jax.nn.logsumexp(log_pi + log_p, axis=-1)

    def mean(self, outputs: Float[Array, "B H W CP"]) -> Float[Array, "B H W C"]:
        """Return the expected value of each channel, in 0 ... 255.

        The mixture is clipped to 0 ... 255 but not rounded.
        """
        log_pi, mean, scale = self._parameters(outputs)
        # E[X] is the integral of p(X > x) over 0 ... 255.
        above_first = jax.nn.softplus(mean / scale)
        above_last = jax.nn.softplus((mean - (NUM_VALUES - 1)) / scale)
        means = jnp.clip(scale * (above_first - above_last), 0, NUM_VALUES - 1)
        return jnp.sum(jnp.exp(log_pi) * means, axis=-1)

    def sample(
        self, key: PRNGKeyArray, outputs: Float[Array, "B H W CP"]
    ) -> UInt8[Array, "B H W C"]:
        """Sample a component, then a value, independently for each channel."""
        component_key, value_key = jax.random.split(key)
        log_pi, mean, scale = self._parameters(outputs)
        component = jax.random.categorical(component_key, log_pi, axis=-1)[..., None]
        mean, scale = (
            jnp.take_along_axis(p, component, axis=-1)[..., 0] for p in (mean, scale)
        )
        draw = mean + scale * jax.random.logistic(value_key, mean.shape)
        return to_uint8(jnp.clip(draw, 0, NUM_VALUES - 1))

    def _parameters(self, outputs):
        """Return log pi, means and scales, `[B, H, W, C, M]`, in units of the values.

        In these units the distance to the edge of a bin is exact near the mean, where
        adjacent bins must agree on their shared edge.
        """
        channels = per_channel(outputs, self.num_outputs)
        logits, mean, log_scale = jnp.split(channels, 3, axis=-1)
        # Spread the means evenly over the values at output 0: an untrained decoder
        # outputs nearly the same for all components, which would otherwise get the
        # same gradient.
        spread = jnp.linspace(-1, 1, self.components + 2)[1:-1]
        mean = jnp.clip(mean + spread[None, None, None, None], *self.mean_range)
        log_scale = jnp.clip(log_scale, *self.log_scale_range) + math.log(_HALF)
        return jax.nn.log_softmax(logits), (mean + 1.0) * _HALF, jnp.exp(log_scale)
