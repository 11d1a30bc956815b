"""The speech encoder of VQ-VAE (section 4.3): strided convolutions over a waveform."""

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Float32

from vqvae_jax.networks.convolution import Conv
from vqvae_jax.runtime.errors import require

_FACTORS = (2, 3, 5)


def strides_of(downsampling: int) -> tuple[int, ...]:
    """Factor a downsampling into strides, the larger ones first.

    64 is six times 2, as in the paper; 640 is 5 and seven times 2.

    Raises:
      UserError: it has other prime factors than 2, 3 and 5.
    """
    require(downsampling >= 1, f"downsampling must be at least 1, got {downsampling}")
    strides, rest = [], downsampling
    for factor in _FACTORS:
        while rest % factor == 0:
            strides.append(factor)
            rest //= factor
    require(
        rest == 1,
        f"downsampling must be a product of 2, 3 and 5, got {downsampling}",
    )
    return tuple(sorted(strides, reverse=True))


class SpeechEncoder(nn.Module):
    """Map a waveform [B, T] to z_e [B, ceil(T / downsampling), out_features].

    A convolution twice as wide as its stride for each factor of the downsampling, then
    residual blocks of width 3. What a mask leaves out is zero behind every layer, as
    what lies beyond a sequence's end is: a padded sequence gives the codes that it
    gives alone.

    Attributes:
      out_features: channels of z_e.
      downsampling: samples of a code.
      units: channels of every layer.
      residual_blocks: behind the strided convolutions.
      dtype: compute dtype; z_e is float32.
    """

    out_features: int
    downsampling: int = 64
    units: int = 256
    residual_blocks: int = 2
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, waveform: Float[Array, "B T"], mask: Bool[Array, "B T"] | None = None
    ) -> Float32[Array, "B N out_features"]:
        """Encode samples in -1 ... 1; `mask` is False from each sequence's end on."""
        x = waveform[:, None, :, None]
        if mask is None:
            mask = jnp.ones(waveform.shape, bool)

        def keep(x):
            return jnp.where(mask[:, None, :, None], x, jnp.zeros((), x.dtype))

        x = keep(x)
        for number, stride in enumerate(strides_of(self.downsampling)):
            before, after = _padding(stride, x.shape[2])
            x = Conv(
                self.units,
                (1, 2 * stride),
                stride=stride,
                padding=((0, 0), (before, after)),
                dtype=self.dtype,
                name=f"stage_{number}",
            )(nn.relu(x) if number else x)
            mask = mask[:, ::stride]
            x = keep(x)
        for number in range(self.residual_blocks):
            h = Conv(self.units, (1, 3), dtype=self.dtype, name=f"wide_{number}")(
                nn.relu(x)
            )
            h = Conv(self.units, (1, 1), dtype=self.dtype, name=f"narrow_{number}")(
                nn.relu(h)
            )
            x = keep(x + h)
        z_e = Conv(self.out_features, (1, 1), dtype=self.dtype, name="project")(
            nn.relu(x)
        )
        return keep(z_e)[:, 0].astype(jnp.float32)


def _padding(stride: int, length: int) -> tuple[int, int]:
    """Return zeros before and after, so that ceil(length / stride) windows fit.

    The same number comes before a sequence of any length: a place's window does not
    depend on how far the padding behind it goes.
    """
    before = stride // 2
    places = -(-length // stride)
    return before, max(0, (places - 1) * stride + 2 * stride - length - before)
