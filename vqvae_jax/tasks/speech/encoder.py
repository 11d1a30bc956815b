"""The speech encoder of the paper (section 4.3): strided convolutions of a waveform."""

from typing import Annotated

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Float32

from vqvae_jax.networks.convolution import Conv
from vqvae_jax.options import GIVEN, DType
from vqvae_jax.runtime.errors import require

_FACTORS = (2, 3, 5)


def strides_of(downsampling: int) -> tuple[int, ...]:
    """Factor a downsampling into strides, in descending order.

    64 gives six strides of 2, as in the paper; 640 gives 5 and seven strides of 2.

    Raises:
      UserError: if it has prime factors other than 2, 3 and 5.
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
    """Maps a waveform [B, T] to z_e [B, ceil(T / downsampling), out_features].

    One convolution per factor of the downsampling, with twice the stride as width, then
    residual blocks of width 3. Every layer's output is set to zero where the mask is
    False, like the padding beyond a sequence's end, so that a padded sequence gives the
    same codes as the sequence alone.

    Attributes:
      out_features: channels of z_e.
      downsampling: samples per code.
      channels: channels of every layer.
      residual_blocks: number of residual blocks after the strided convolutions.
      dtype: compute dtype; z_e is float32.
    """

    out_features: Annotated[int, GIVEN, ">= 1"] = 1
    downsampling: Annotated[int, ">= 2"] = 64
    channels: Annotated[int, ">= 1"] = 256
    residual_blocks: Annotated[int, ">= 0", "<= 1000"] = 2
    dtype: DType = "float32"

    @nn.compact
    def __call__(
        self, waveform: Float[Array, "B T"], mask: Bool[Array, "B T"] | None = None
    ) -> Float32[Array, "B N out_features"]:
        """Encode samples in [-1, 1]; `mask` is False after the end of each sequence."""
        x = waveform[:, None, :, None]
        if mask is None:
            mask = jnp.ones(waveform.shape, bool)

        def keep(x):
            return jnp.where(mask[:, None, :, None], x, jnp.zeros((), x.dtype))

        x = keep(x)
        for number, stride in enumerate(strides_of(self.downsampling)):
            before, after = _padding(stride, x.shape[2])
            x = Conv(
                self.channels,
                (1, 2 * stride),
                stride=stride,
                padding=((0, 0), (before, after)),
                dtype=self.dtype,
                name=f"stage_{number}",
            )(nn.relu(x) if number else x)
            mask = mask[:, ::stride]
            x = keep(x)
        for number in range(self.residual_blocks):
            h = Conv(self.channels, (1, 3), dtype=self.dtype, name=f"wide_{number}")(
                nn.relu(x)
            )
            h = Conv(self.channels, (1, 1), dtype=self.dtype, name=f"narrow_{number}")(
                nn.relu(h)
            )
            x = keep(x + h)
        z_e = Conv(self.out_features, (1, 1), dtype=self.dtype, name="project")(
            nn.relu(x)
        )
        return keep(z_e)[:, 0].astype(jnp.float32)


def _padding(stride: int, length: int) -> tuple[int, int]:
    """Return the zeros before and after that give ceil(length / stride) windows.

    The padding before does not depend on the length, so that the position of a window
    does not depend on the padding after the sequence.
    """
    before = stride // 2
    windows = -(-length // stride)
    return before, max(0, (windows - 1) * stride + 2 * stride - length - before)
