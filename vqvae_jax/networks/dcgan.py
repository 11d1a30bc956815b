"""The generator and discriminator of DCGAN (Radford, Metz and Chintala, 2016).

    z -> dense -> [h, w, units] -> [2h, 2w, units / 2] -> ... -> [H, W, C]

and back. Where DCGAN has BatchNorm there is LayerNorm over channels in the generator
and nothing in the discriminator: no running statistics, and no example, padding among
them, changes what becomes of another, as R1's gradient for each image needs.
"""

import math

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32

from vqvae_jax.networks.convolution import Conv, ConvTranspose

# Unit variance before the tanh, which he_normal would drive into saturation.
_LINEAR = nn.initializers.lecun_normal()


class Generator(nn.Module):
    """Map z [B, Z] to images [B, H, W, C] in -1 ... 1.

    A dense layer to the smallest grid, the image halved `stages` times, then as many
    transposed 4x4 convolutions of stride 2, each to half the channels of the one
    before and the last to C; LayerNorm and ReLU between each two, tanh at the end. The
    result is float32 whatever `dtype` the sums run in.

    Attributes:
      image_shape: `(H, W, C)`; 2^stages divides H and W.
      units: channels of the smallest grid; a multiple of 2^(stages - 1).
      stages: transposed convolutions.
      dtype: compute dtype.
    """

    image_shape: tuple[int, int, int]
    units: int = 512
    stages: int = 3
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, z: Float[Array, "B Z"]) -> Float32[Array, "B H W C"]:
        height, width, channels = self.image_shape
        grid = (height >> self.stages, width >> self.stages, self.units)
        x = nn.Dense(math.prod(grid), dtype=self.dtype, name="dense")(z)
        x = x.reshape(-1, *grid)
        for stage in range(self.stages):
            last = stage == self.stages - 1
            x = nn.LayerNorm(dtype=self.dtype, name=f"norm_{stage}")(x)
            x = ConvTranspose(
                channels if last else self.units >> (stage + 1),
                dtype=self.dtype,
                kernel_init=_LINEAR if last else nn.initializers.he_normal(),
                name=f"stage_{stage}",
            )(nn.relu(x))
        return jnp.tanh(x.astype(jnp.float32))


class Discriminator(nn.Module):
    """Map images [B, H, W, C] to logits [B], high where an image seems real.

    The generator's mirror: `stages` 4x4 convolutions of stride 2, each to twice the
    channels of the one before and the last to `units`, a leaky ReLU after each, then a
    dense layer over all that is left. The result is float32 whatever `dtype` the sums
    run in.
    """

    units: int = 512
    stages: int = 3
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, images: Float[Array, "B H W C"]) -> Float32[Array, " B"]:
        x = images
        for stage in range(self.stages):
            x = Conv(
                self.units >> (self.stages - 1 - stage),
                (4, 4),
                stride=2,
                dtype=self.dtype,
                name=f"stage_{stage}",
            )(x)
            x = nn.leaky_relu(x, 0.2)
        x = x.reshape(x.shape[0], -1)
        logits = nn.Dense(1, dtype=self.dtype, name="dense")(x)
        return logits[:, 0].astype(jnp.float32)
