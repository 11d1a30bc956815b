"""Networks between a grid of codes and a few latents (section 4.2).

In the second VQ-VAE, strided convolutions map 21x21 codes to 3 vectors. Transposed
convolutions map these to a feature map that the PixelCNN is conditioned on.
"""

from typing import Annotated

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int

from vqvae_jax.networks.autoencoder import Decoder, Encoder
from vqvae_jax.networks.cell_decoder import CodeEmbedding
from vqvae_jax.options import GIVEN, DType


class GlobalEncoder(nn.Module):
    """Map codes [B, H, W, C] in 0 ... num_codes - 1 to vectors [B, out_features].

    The embedded codes go through the image encoder's strided convolutions and residual
    blocks, then all remaining cells through one dense layer. The result is float32.

    Attributes:
      out_features: features of the vectors.
      num_codes: K, the categories.
      codes_per_cell: C, number of codes of a cell.
      channels: channels of the embeddings and of every layer.
      num_downsamples: number of strided convolutions.
      residual_blocks: number of residual blocks.
      residual_channels: channels inside a residual block.
      dtype: compute dtype; parameters are float32.
    """

    out_features: Annotated[int, GIVEN, ">= 1"] = 1
    num_codes: Annotated[int, GIVEN, ">= 1"] = 1
    codes_per_cell: Annotated[int, GIVEN, ">= 1"] = 1
    channels: Annotated[int, ">= 1"] = 128
    num_downsamples: Annotated[int, ">= 0", "<= 16"] = 2
    residual_blocks: Annotated[int, ">= 0", "<= 1000"] = 2
    residual_channels: Annotated[int, ">= 1"] = 64
    dtype: DType = "float32"

    @nn.compact
    def __call__(
        self, codes: Int[Array, "B H W C"]
    ) -> Float32[Array, "B out_features"]:
        embedding = CodeEmbedding(
            self.num_codes, self.codes_per_cell, self.channels, name="embedding"
        )
        cells = Encoder(
            out_features=self.channels,
            channels=self.channels,
            num_downsamples=self.num_downsamples,
            residual_blocks=self.residual_blocks,
            residual_channels=self.residual_channels,
            dtype=self.dtype,
            name="cells",
        )(embedding(codes).sum(axis=-2))
        cells = nn.relu(cells).reshape(codes.shape[0], -1)
        return nn.Dense(self.out_features, dtype=self.dtype, name="latents")(
            cells
        ).astype(jnp.float32)


class GlobalDecoder(nn.Module):
    """Map vectors [B, N] to a map [B, H, W, out_channels] over a grid of `grid` cells.

    Mirrors the encoder: a dense layer to the smallest grid, then the image decoder. A
    side that is not a multiple of 2^num_downsamples is cropped. The result is float32.

    Attributes:
      grid: `(H, W)`.
      out_channels: channels of the map, which the PixelCNN is conditioned on.
      channels: channels of every layer but the last.
      num_downsamples: number of transposed convolutions.
      residual_blocks: number of residual blocks.
      residual_channels: channels inside a residual block.
      dtype: compute dtype; parameters are float32.
    """

    grid: Annotated[tuple[int, int], GIVEN] = (1, 1)
    out_channels: Annotated[int, ">= 1"] = 64
    channels: Annotated[int, ">= 1"] = 128
    num_downsamples: Annotated[int, ">= 0", "<= 16"] = 2
    residual_blocks: Annotated[int, ">= 0", "<= 1000"] = 2
    residual_channels: Annotated[int, ">= 1"] = 64
    dtype: DType = "float32"

    @nn.compact
    def __call__(self, z: Float[Array, "B N"]) -> Float32[Array, "B H W out_channels"]:
        height, width = self.grid
        h, w = (-(-side // 2**self.num_downsamples) for side in self.grid)
        cells = nn.Dense(h * w * self.channels, dtype=self.dtype, name="cells")(z)
        features = Decoder(
            out_channels=self.out_channels,
            channels=self.channels,
            num_downsamples=self.num_downsamples,
            residual_blocks=self.residual_blocks,
            residual_channels=self.residual_channels,
            dtype=self.dtype,
            # Image outputs start near zero. From such a map, the PixelCNN would learn
            # to ignore it before it carries information.
            out_init=nn.initializers.he_normal(),
            name="map",
        )(nn.relu(cells).reshape(-1, h, w, self.channels))
        return features[:, :height, :width]
