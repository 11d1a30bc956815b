"""Models of whole grids of codes with a few latents (section 4.2).

    codes -> encoder -> latents -> map over the grid -> PixelCNN -> p(codes | latents)

In the second VQ-VAE, strided convolutions map 21x21 codes to 3 vectors. The latents
reach the PixelCNN as a map over its grid, from a small deconvolutional network, not as
one vector for all cells. A gated PixelCNN infers its position only from the zero
padding of the grid: a vector could describe what a frame contains but hardly where, and
latents with the same effect everywhere are soon ignored. With a map, each latent
changes the logits of particular cells from the first step.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int, PRNGKeyArray

from vqvae_jax import metrics, options
from vqvae_jax.models.base import Shapes, codes_batch, require_sides
from vqvae_jax.models.prior import Prior
from vqvae_jax.networks.autoencoder import Decoder, Encoder
from vqvae_jax.networks.cell_decoder import CodeEmbedding
from vqvae_jax.networks.pixelcnn import PixelCNN
from vqvae_jax.options import GIVEN, DType
from vqvae_jax.runtime.arrays import AnyArray, require_range, require_shape
from vqvae_jax.runtime.errors import require


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


class Params(NamedTuple):
    """The parameters of a model of global latents.

    encoder: the encoder's parameters.
    to_map: those of the network from latents to the PixelCNN's map.
    pixelcnn: the PixelCNN's.
    quantizer: the state of the quantizer of discrete latents; None for continuous ones.
    """

    encoder: Any
    to_map: Any
    pixelcnn: Any
    quantizer: Any = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class GlobalLatents:
    """The encoder and p(codes | latents), for latents of any kind.

    Attributes:
      grid: `(H, W, C)` of a frame's codes, the VQ-VAE's.
      num_codes: K of these codes, the VQ-VAE's.
      encoder: from codes to latents.
      to_map: from latents to the PixelCNN's map.
      pixelcnn: of p(codes | map).
    """

    grid: Annotated[tuple[int, int, int], GIVEN]
    num_codes: Annotated[int, GIVEN, ">= 1"]
    encoder: GlobalEncoder = GlobalEncoder()
    to_map: GlobalDecoder = GlobalDecoder()
    pixelcnn: PixelCNN = PixelCNN()

    def __post_init__(self):
        """Check every option; UserError names the first wrong one."""
        require_sides("grid", self.grid)
        options.check(self)
        height, width, _ = self.grid
        for name in ("encoder", "to_map"):
            halvings = getattr(self, name).num_downsamples
            require(
                2**halvings <= min(height, width),
                f"{name}.num_downsamples={halvings} halves a grid of {height}x{width} "
                "codes to less than one cell: lower it",
            )

    @property
    def latent_features(self) -> int:
        """N, the width of z."""
        raise NotImplementedError

    @property
    def decoder(self) -> Prior:
        """The PixelCNN p(codes | map)."""
        return Prior(
            grid=self.grid,
            num_codes=self.num_codes,
            map_features=self.to_map.out_channels,
            network=self.pixelcnn,
        )

    @property
    def without_latents(self) -> Prior:
        """The same PixelCNN without a map, which is a prior without latents."""
        return dataclasses.replace(self.decoder, map_features=0)

    def init_batch(self) -> Shapes:
        """Return the shapes of a batch that `init` accepts."""
        return codes_batch(self.grid)

    @property
    def codes_per_frame(self) -> int:
        """Codes of a frame."""
        return math.prod(self.grid)

    def encode(self, params: Params, codes: Int[AnyArray, "B H W C"]) -> Array:
        """Return the latents of frames, `[B, ...]`."""
        raise NotImplementedError

    def log_prob(
        self, params: Params, codes: Int[AnyArray, "B H W C"], latents: AnyArray
    ) -> Float[Array, " B"]:
        """Return log p(codes | latents) of each frame, in nats.

        Raises:
          UserError: the codes or the latents do not fit this model.
        """
        self._check_latents(latents)
        return -self._nats(params, codes, self._vectors(params, latents))

    def decode(
        self,
        params: Params,
        key: PRNGKeyArray,
        latents: AnyArray,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Int[Array, "B H W C"]:
        """Draw the codes of a frame from p(codes | latents) for each row of latents.

        See `Prior.sample` for the options. Compiled once for each number of frames and
        each `progress`.

        Raises:
          UserError: the latents do not fit this model, or an option is invalid.
        """
        self._check_latents(latents)
        return self.decoder.sample(
            params.pixelcnn,
            key,
            features=self._map_of(params, latents),
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            progress=progress,
        )

    def _check_latents(self, latents: AnyArray) -> None:
        """Raise UserError unless the latents fit this model."""
        raise NotImplementedError

    def _vectors(self, params: Params, latents: AnyArray) -> Float[Array, "B N"]:
        """Return the decoder's input for latents."""
        raise NotImplementedError

    @functools.partial(jax.jit, static_argnames="self")
    def _map_of(self, params, latents) -> Float[Array, "B H W M"]:
        return self._to_map.apply(params.to_map, self._vectors(params, latents))

    def _nats(self, params, codes, z, dropout_key=None) -> Float[Array, " B"]:
        """Return -log p(codes | z) of each frame."""
        return -self.decoder.log_prob(
            params.pixelcnn,
            codes,
            features=self._to_map.apply(params.to_map, z),
            dropout_key=dropout_key,
        )

    def _per_code(self, nats: Float[Array, " B"]) -> Float[Array, " B"]:
        return nats / self.codes_per_frame

    def _bits_per_code(self, nats, mask) -> dict[str, metrics.Mean]:
        bits = self._per_code(nats) / math.log(2)
        return {"bits_per_code": metrics.mean(bits, mask)}

    def _init_networks(self, key, codes, *, heads: int) -> Params:
        """Initialise at random; the encoder has `heads` outputs per feature of z."""
        encoder_key, map_key, pixelcnn_key = jax.random.split(key, 3)
        z = jnp.zeros((1, self.latent_features))
        to_map = self._to_map.init(map_key, z)
        batch = {"codes": codes[:1], "features": self._to_map.apply(to_map, z)}
        return Params(
            encoder=self._encoder_to(heads).init(encoder_key, codes[:1]),
            to_map=to_map,
            pixelcnn=self.decoder.init(pixelcnn_key, batch),
        )

    def _encoded(self, params, codes, *, heads: int) -> Float[Array, "B N"]:
        require_shape("codes", codes, "B", *self.grid)
        require_range("codes", codes, 0, self.num_codes)
        return self._encoder_to(heads).apply(params.encoder, jnp.asarray(codes))

    def _encoder_to(self, heads: int) -> GlobalEncoder:
        return self.encoder.clone(
            out_features=heads * self.latent_features,
            num_codes=self.num_codes,
            codes_per_cell=self.grid[-1],
        )

    @property
    def _to_map(self) -> GlobalDecoder:
        return self.to_map.clone(grid=self.grid[:2])
