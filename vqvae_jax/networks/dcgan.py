"""The generator and discriminator of DCGAN (Radford, Metz and Chintala, 2016).

    z -> dense -> [h, w, channels] -> [2h, 2w, channels / 2] -> ... -> [H, W, C]

and back. In place of DCGAN's BatchNorm the generator uses LayerNorm over channels and
the discriminator no normalization: there are no running statistics, and no example or
padding affects another, as the per-image gradient of R1 requires.
"""

import math
from typing import Annotated

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32

from vqvae_jax.networks.convolution import Conv, ConvTranspose
from vqvae_jax.options import GIVEN, DType

# Keeps unit variance before the tanh, which he_normal would saturate.
_LINEAR = nn.initializers.lecun_normal()


class Generator(nn.Module):
    """Map z [B, Z] to images [B, H, W, C] in -1 ... 1.

    A dense layer maps z to the smallest grid, the image size halved `num_downsamples`
    times. Then as many transposed 4x4 convolutions of stride 2 follow, each with half
    the channels of the one before, the last with C. LayerNorm and ReLU precede each
    convolution, tanh follows the last. The result is float32 for any `dtype`.

    Attributes:
      image_shape: `(H, W, C)`; 2^num_downsamples divides H and W.
      channels: channels of the smallest grid; a multiple of 2^(num_downsamples - 1).
      num_downsamples: number of transposed convolutions.
      dtype: compute dtype.
    """

    image_shape: Annotated[tuple[int, int, int], GIVEN] = (1, 1, 1)
    channels: Annotated[int, ">= 1"] = 512
    num_downsamples: Annotated[int, ">= 1", "<= 16"] = 3
    dtype: DType = "float32"

    @nn.compact
    def __call__(self, z: Float[Array, "B Z"]) -> Float32[Array, "B H W C"]:
        height, width, colours = self.image_shape
        grid = (
            height >> self.num_downsamples,
            width >> self.num_downsamples,
            self.channels,
        )
        x = nn.Dense(math.prod(grid), dtype=self.dtype, name="dense")(z)
        x = x.reshape(-1, *grid)
        for stage in range(self.num_downsamples):
            last = stage == self.num_downsamples - 1
            x = nn.LayerNorm(dtype=self.dtype, name=f"norm_{stage}")(x)
            x = ConvTranspose(
                colours if last else self.channels >> (stage + 1),
                dtype=self.dtype,
                kernel_init=_LINEAR if last else nn.initializers.he_normal(),
                name=f"stage_{stage}",
            )(nn.relu(x))
        return jnp.tanh(x.astype(jnp.float32))


class Discriminator(nn.Module):
    """Map images [B, H, W, C] to logits [B], high for real images.

    Mirrors the generator: `num_downsamples` 4x4 convolutions of stride 2, each with
    twice the channels of the one before, the last with `channels`. A leaky ReLU follows
    each, and a dense layer reads the flattened result. The logits are float32 for any
    `dtype`.

    Attributes:
      channels: channels of the smallest grid; a multiple of 2^(num_downsamples - 1).
      num_downsamples: number of convolutions.
      dtype: compute dtype.
    """

    channels: Annotated[int, ">= 1"] = 512
    num_downsamples: Annotated[int, ">= 1", "<= 16"] = 3
    dtype: DType = "float32"

    @nn.compact
    def __call__(self, images: Float[Array, "B H W C"]) -> Float32[Array, " B"]:
        x = images
        for stage in range(self.num_downsamples):
            x = Conv(
                self.channels >> (self.num_downsamples - 1 - stage),
                (4, 4),
                stride=2,
                dtype=self.dtype,
                name=f"stage_{stage}",
            )(x)
            x = nn.leaky_relu(x, 0.2)
        x = x.reshape(x.shape[0], -1)
        logits = nn.Dense(1, dtype=self.dtype, name="dense")(x)
        return logits[:, 0].astype(jnp.float32)
