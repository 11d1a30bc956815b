"""A few latents for a whole grid of codes, and a map over the grid made of them.

The second VQ-VAE of section 4.2 has these around its latents: strided convolutions
from 21x21 codes to 3 vectors, and the way back, which ends in what a PixelCNN is told
at each cell.
"""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32, Int

from vqvae_jax.networks.autoencoder import Decoder, Encoder
from vqvae_jax.networks.cell_decoder import CodeEmbedding


class GlobalEncoder(nn.Module):
    """Map codes [B, H, W, C] in 0 ... num_codes - 1 to vectors [B, out_features].

    The embedded codes go through the image encoder's strided convolutions and residual
    blocks; one dense layer then sees all cells that are left. The result is float32.
    """

    out_features: int
    num_codes: int
    codes_per_cell: int = 1
    units: int = 128
    stages: int = 2
    residual_blocks: int = 2
    residual_units: int = 64
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, codes: Int[Array, "B H W C"]
    ) -> Float32[Array, "B out_features"]:
        embedding = CodeEmbedding(
            self.num_codes, self.codes_per_cell, self.units, name="embedding"
        )
        cells = Encoder(
            out_features=self.units,
            units=self.units,
            stages=self.stages,
            residual_blocks=self.residual_blocks,
            residual_units=self.residual_units,
            dtype=self.dtype,
            name="cells",
        )(embedding(codes).sum(axis=-2))
        cells = nn.relu(cells).reshape(codes.shape[0], -1)
        return nn.Dense(self.out_features, dtype=self.dtype, name="latents")(
            cells
        ).astype(jnp.float32)


class GlobalDecoder(nn.Module):
    """Map vectors [B, N] to a map [B, H, W, out_channels] over a grid of `grid` cells.

    The encoder's mirror: a dense layer to the smallest grid, then the image decoder. A
    side that `stages` halvings round up is cut to size. The result is float32.
    """

    grid: tuple[int, int]
    out_channels: int
    units: int = 128
    stages: int = 2
    residual_blocks: int = 2
    residual_units: int = 64
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, z: Float[Array, "B N"]) -> Float32[Array, "B H W out_channels"]:
        height, width = self.grid
        h, w = (-(-side // 2**self.stages) for side in self.grid)
        cells = nn.Dense(h * w * self.units, dtype=self.dtype, name="cells")(z)
        features = Decoder(
            out_channels=self.out_channels,
            units=self.units,
            stages=self.stages,
            residual_blocks=self.residual_blocks,
            residual_units=self.residual_units,
            dtype=self.dtype,
            # Near zero, as an image's outputs start, the PixelCNN would learn to do
            # without the map before there is anything in it.
            out_init=nn.initializers.he_normal(),
            name="map",
        )(nn.relu(cells).reshape(-1, h, w, self.units))
        return features[:, :height, :width]
