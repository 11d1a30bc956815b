"""The image encoder and decoder of the paper (section 4.1).

Both are stacks of strided convolutions and residual blocks. Models decide what lies
between them and what the decoder's outputs parametrise.
"""

from typing import Annotated, Literal

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32

from vqvae_jax.networks.convolution import Conv, ConvTranspose
from vqvae_jax.options import GIVEN, DType

# Near-zero initial outputs start p(x|z) broad: a Gaussian with a random initial scale
# has a first loss in the thousands.
_NEAR_ZERO = nn.initializers.variance_scaling(0.01, "fan_in", "normal")


Norm = Literal["none", "rms"]


class ResidualBlock(nn.Module):
    """Add ReLU, 3x3 convolution, ReLU, 1x1 convolution to the input.

    [B, H, W, C] to [B, H, W, channels]. Where C differs from `channels`, the skip goes
    through a 1x1 convolution of its own. With `norm` "rms" the input of the first ReLU
    is divided by its root mean square over the channels.
    """

    channels: int
    residual_channels: int
    dtype: DTypeLike = jnp.float32
    norm: Norm = "none"

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W channels"]:
        h = _normalized(x, self.norm, "norm")
        h = Conv(self.residual_channels, (3, 3), dtype=self.dtype, name="conv3x3")(
            nn.relu(h)
        )
        h = Conv(self.channels, (1, 1), dtype=self.dtype, name="conv1x1")(nn.relu(h))
        if x.shape[-1] != self.channels:
            x = Conv(self.channels, (1, 1), dtype=self.dtype, name="skip")(x)
        return x.astype(self.dtype) + h


class Encoder(nn.Module):
    """Map images [B, H, W, C] to z_e [B, h, w, out_features].

    4x4 convolutions of stride 2 with a ReLU between each two, then the residual blocks,
    a ReLU and a 1x1 projection. Without strided convolutions there is one 3x3
    convolution. Each halving rounds an odd side up. The result is float32.

    Attributes:
      out_features: features of z_e.
      channels: channels of every layer.
      num_downsamples: number of strided convolutions; h = H / 2^num_downsamples.
      residual_blocks: number of residual blocks.
      residual_channels: channels inside a residual block.
      norm: "rms" divides the inputs of residual blocks and of the projection by their
        root mean square over the channels, times a learned scale; "none" for the
        paper's.
      dtype: compute dtype; parameters are float32.
      remat: recompute activations inside blocks for the gradient instead of keeping
        them: less memory, more time, the same results.
    """

    out_features: Annotated[int, GIVEN, ">= 1"] = 1
    channels: Annotated[int, ">= 1"] = 256
    num_downsamples: Annotated[int, ">= 0", "<= 16"] = 2
    residual_blocks: Annotated[int, ">= 0", "<= 1000"] = 2
    residual_channels: Annotated[int, ">= 1"] = 256
    norm: Norm = "none"
    dtype: DType = "float32"
    remat: bool = False

    @property
    def reach(self) -> int:
        """Cells beyond a cell whose pixels its z_e depends on."""
        # The strided convolutions together see less than a cell more, as does the 3x3
        # convolution in their place.
        return 1 + self.residual_blocks

    @nn.compact
    def __call__(
        self, images: Float[Array, "B H W C"]
    ) -> Float32[Array, "B h w out_features"]:
        downsample, residual_block = Encoder._downsample, ResidualBlock
        if self.remat:
            downsample, residual_block = map(nn.remat, (downsample, residual_block))
        x = downsample(self, images)
        for block in range(self.residual_blocks):
            x = residual_block(
                self.channels,
                self.residual_channels,
                self.dtype,
                self.norm,
                name=f"block_{block}",
            )(x)
        x = nn.relu(_normalized(x, self.norm, "norm"))
        z_e = Conv(self.out_features, (1, 1), dtype=self.dtype, name="project")(x)
        return z_e.astype(jnp.float32)

    def _downsample(self, x):
        if self.num_downsamples == 0:
            return Conv(self.channels, (3, 3), dtype=self.dtype, name="conv")(x)
        for stage in range(self.num_downsamples):
            x = nn.relu(x) if stage else x
            x = Conv(
                self.channels, (4, 4), stride=2, dtype=self.dtype, name=f"stage_{stage}"
            )(x)
        return x


class Decoder(nn.Module):
    """Map z_q [B, h, w, D] to outputs [B, H, W, out_channels].

    The encoder's mirror: a 3x3 convolution, the residual blocks, a ReLU, then
    transposed 4x4 convolutions of stride 2 with a ReLU between each two. Without
    transposed convolutions there is one 3x3 convolution. The last of these convolutions
    gives the outputs, or hidden layers at full resolution come before a 1x1 convolution
    to the outputs: with many outputs a pixel, as the 768 logits of RGB, that is less
    work. The result is float32.

    Attributes:
      out_channels: channels of the last layer.
      channels: channels of every layer but the last.
      num_downsamples: number of transposed convolutions; H = h 2^num_downsamples.
      residual_blocks: number of residual blocks.
      residual_channels: channels inside a residual block.
      full_resolution_layers: number of hidden layers of `channels` at full resolution:
        the last transposed convolution, then 3x3 convolutions. 0 for none.
      norm: of the inputs of residual blocks and of the layers after them, as in the
        encoder.
      dtype: compute dtype; parameters are float32.
      out_init: initialiser of the last layer's kernel.
      remat: recompute activations inside blocks for the gradient, as in the encoder.
    """

    out_channels: Annotated[int, GIVEN, ">= 1"] = 1
    channels: Annotated[int, ">= 1"] = 256
    num_downsamples: Annotated[int, ">= 0", "<= 16"] = 2
    residual_blocks: Annotated[int, ">= 0", "<= 1000"] = 2
    residual_channels: Annotated[int, ">= 1"] = 256
    full_resolution_layers: Annotated[int, ">= 0", "<= 100"] = 0
    norm: Norm = "none"
    dtype: DType = "float32"
    out_init: Annotated[nn.initializers.Initializer, GIVEN] = _NEAR_ZERO
    remat: bool = False

    @property
    def reach(self) -> int:
        """Cells beyond a cell that its pixels depend on."""
        # A transposed convolution sees one row more of its own input, whose rows are
        # 2, 4, ... times finer than cells after the first.
        finest = 2**self.num_downsamples
        rows = max(2 * (finest - 1), 1) + max(self.full_resolution_layers - 1, 0)
        return 1 + self.residual_blocks + -(-rows // finest)

    @nn.compact
    def __call__(
        self, z_q: Float[Array, "B h w D"]
    ) -> Float32[Array, "B H W out_channels"]:
        upsample, residual_block = Decoder._upsample, ResidualBlock
        if self.remat:
            upsample, residual_block = map(nn.remat, (upsample, residual_block))
        x = Conv(self.channels, (3, 3), dtype=self.dtype, name="expand")(z_q)
        for block in range(self.residual_blocks):
            x = residual_block(
                self.channels,
                self.residual_channels,
                self.dtype,
                self.norm,
                name=f"block_{block}",
            )(x)
        x = upsample(self, x)
        if self.full_resolution_layers > 0:
            for layer in range(1, self.full_resolution_layers):
                x = Conv(self.channels, (3, 3), dtype=self.dtype, name=f"full_{layer}")(
                    nn.relu(x)
                )
            x = Conv(
                self.out_channels,
                (1, 1),
                dtype=self.dtype,
                kernel_init=self.out_init,
                name="outputs",
            )(nn.relu(_normalized(x, self.norm, "full_norm")))
        return x.astype(jnp.float32)

    def _upsample(self, x):
        """Return the outputs, or the first hidden layer at full resolution."""
        he_normal = nn.initializers.he_normal()
        if self.full_resolution_layers > 0:
            last = {"features": self.channels, "kernel_init": he_normal}
        else:
            last = {"features": self.out_channels, "kernel_init": self.out_init}
        x = nn.relu(_normalized(x, self.norm, "norm"))
        if self.num_downsamples == 0:
            return Conv(kernel_size=(3, 3), dtype=self.dtype, name="conv", **last)(x)
        hidden = {"features": self.channels, "kernel_init": he_normal}
        for stage in range(self.num_downsamples):
            x = nn.relu(_normalized(x, self.norm, f"norm_{stage}")) if stage else x
            layer = last if stage == self.num_downsamples - 1 else hidden
            x = ConvTranspose(dtype=self.dtype, name=f"stage_{stage}", **layer)(x)
        return x


def _normalized(x, norm: Norm, name: str):
    """Apply a norm in float32; the result has the dtype of x."""
    if norm == "none":
        return x
    return nn.RMSNorm(dtype=jnp.float32, name=name)(x).astype(x.dtype)
