"""The image encoder and decoder of VQ-VAE (van den Oord et al., 2017, section 4.1).

Both are stacks of strided convolutions and residual blocks; what lies between them,
and what the decoder's outputs mean, is the models' business.
"""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32

from vqvae_jax.networks.convolution import Conv, ConvTranspose

# An untrained decoder's outputs are near zero, so that p(x|z) starts broad: a Gaussian
# whose scale starts at random has a first loss in the thousands.
_NEAR_ZERO = nn.initializers.variance_scaling(0.01, "fan_in", "normal")


class ResidualBlock(nn.Module):
    """Add ReLU, 3x3 convolution, ReLU, 1x1 convolution to the input.

    [B, H, W, C] to [B, H, W, units]. Where C differs from `units`, the skip goes
    through a 1x1 convolution of its own.
    """

    units: int
    residual_units: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W units"]:
        h = Conv(self.residual_units, (3, 3), dtype=self.dtype, name="conv3x3")(
            nn.relu(x)
        )
        h = Conv(self.units, (1, 1), dtype=self.dtype, name="conv1x1")(nn.relu(h))
        if x.shape[-1] != self.units:
            x = Conv(self.units, (1, 1), dtype=self.dtype, name="skip")(x)
        return x.astype(self.dtype) + h


class Encoder(nn.Module):
    """Map images [B, H, W, C] to z_e [B, H / 2^stages, W / 2^stages, out_features].

    `stages` 4x4 convolutions of stride 2 with a ReLU between each two, then the
    residual blocks, a ReLU and a 1x1 projection; with no stages, one 3x3 convolution
    instead. An odd side is rounded up by each stage. The result is float32 whatever
    `dtype` the sums run in. With `remat` only what goes from one of these parts to the
    next is kept for the gradient.
    """

    out_features: int
    units: int = 256
    stages: int = 2
    residual_blocks: int = 2
    residual_units: int = 256
    dtype: DTypeLike = jnp.float32
    remat: bool = False

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
                self.units, self.residual_units, self.dtype, name=f"block_{block}"
            )(x)
        z_e = Conv(self.out_features, (1, 1), dtype=self.dtype, name="project")(
            nn.relu(x)
        )
        return z_e.astype(jnp.float32)

    def _downsample(self, x):
        if self.stages == 0:
            return Conv(self.units, (3, 3), dtype=self.dtype, name="conv")(x)
        for stage in range(self.stages):
            x = nn.relu(x) if stage else x
            x = Conv(
                self.units, (4, 4), stride=2, dtype=self.dtype, name=f"stage_{stage}"
            )(x)
        return x


class Decoder(nn.Module):
    """Map z_q [B, h, w, D] to outputs [B, h 2^stages, w 2^stages, out_channels].

    The encoder's mirror: a 3x3 convolution to `units`, the residual blocks, a ReLU,
    then `stages` transposed 4x4 convolutions of stride 2 with a ReLU between each
    two, the last of which gives `out_channels`; with no stages, one 3x3 convolution
    instead. Its kernel is drawn by `out_init`. The result is float32 whatever `dtype`
    the sums run in. `remat` is as the encoder's.
    """

    out_channels: int
    units: int = 256
    stages: int = 2
    residual_blocks: int = 2
    residual_units: int = 256
    dtype: DTypeLike = jnp.float32
    out_init: nn.initializers.Initializer = _NEAR_ZERO
    remat: bool = False

    @nn.compact
    def __call__(
        self, z_q: Float[Array, "B h w D"]
    ) -> Float32[Array, "B H W out_channels"]:
        upsample, residual_block = Decoder._upsample, ResidualBlock
        if self.remat:
            upsample, residual_block = map(nn.remat, (upsample, residual_block))
        x = Conv(self.units, (3, 3), dtype=self.dtype, name="expand")(z_q)
        for block in range(self.residual_blocks):
            x = residual_block(
                self.units, self.residual_units, self.dtype, name=f"block_{block}"
            )(x)
        return upsample(self, x).astype(jnp.float32)

    def _upsample(self, x):
        x = nn.relu(x)
        if self.stages == 0:
            return Conv(
                self.out_channels,
                (3, 3),
                dtype=self.dtype,
                kernel_init=self.out_init,
                name="conv",
            )(x)
        for stage in range(self.stages):
            last = stage == self.stages - 1
            x = nn.relu(x) if stage else x
            x = ConvTranspose(
                self.out_channels if last else self.units,
                dtype=self.dtype,
                kernel_init=self.out_init if last else nn.initializers.he_normal(),
                name=f"stage_{stage}",
            )(x)
        return x
