"""What models of whole grids of codes by a few latents share (section 4.2).

    codes -> encoder -> latents -> map over the grid -> PixelCNN -> p(codes | latents)

The latents reach the PixelCNN as a map over its grid, by a small deconvolutional
network, not as one vector for all cells: a gated PixelCNN learns where it is only from
the zeros around the grid, so a vector tells it what the frame holds but hardly where,
and three latents whose effect is the same everywhere are soon ignored. With a map each
of them moves the logits of the cells that it is about from the first step on.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from vqvae_jax import metrics, quantizers
from vqvae_jax.models.base import require_sides
from vqvae_jax.models.prior import Prior
from vqvae_jax.runtime.arrays import AnyArray, require_range, require_shape
from vqvae_jax.runtime.errors import require
from vqvae_jax.tasks.hierarchy.networks import GlobalDecoder, GlobalEncoder


class Params(NamedTuple):
    """Everything that a trained model of this kind is.

    encoder: the encoder's parameters.
    to_map: those of the network from latents to the PixelCNN's map.
    pixelcnn: the PixelCNN's.
    codebook: `quantizer.Codebook` of discrete latents, None of continuous ones.
    """

    encoder: Any
    to_map: Any
    pixelcnn: Any
    codebook: quantizers.Codebook | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class GlobalLatents:
    """Sizes and options of the encoder and of p(codes | latents).

    Attributes:
      grid: `(H, W, C)` of a frame's codes, taken from the VQ-VAE.
      num_codes: K of these codes, taken from the VQ-VAE.
      latents: vectors for a frame; the paper has 3.
      dim: D, numbers in each of them.
      stages: stride-2 convolutions between the grid and the latents.
      encoder_units: channels on the way to the latents and back.
      residual_blocks: in each direction.
      residual_units: channels inside a residual block.
      map_features: channels of the map that the PixelCNN is told.
      layers: gated layers of the PixelCNN.
      units: their channels.
      kernel_size: odd.
      cell_layers: residual layers between a cell's context and its logits.
      dropout: rate in the PixelCNN while training.
      dtype: compute dtype, "float32" or "bfloat16".
      remat: compute what lies inside the PixelCNN's layers again for the gradient
        instead of keeping it: less memory, more time, the same results.
    """

    grid: tuple[int, int, int]
    num_codes: int
    latents: int = 3
    dim: int = 64
    stages: int = 2
    encoder_units: int = 128
    residual_blocks: int = 2
    residual_units: int = 64
    map_features: int = 64
    layers: int = 15
    units: int = 128
    kernel_size: int = 5
    cell_layers: int = 1
    dropout: float = 0.0
    dtype: str = "float32"
    remat: bool = False

    def __post_init__(self):
        """Check every option, so that a mistake is told before anything is built."""
        require_sides("grid", self.grid)
        sizes = ("latents", "dim", "encoder_units", "residual_units", "map_features")
        for name in sizes:
            value = getattr(self, name)
            require(value >= 1, f"{name} must be at least 1, got {value}")
        for name in ("stages", "residual_blocks"):
            value = getattr(self, name)
            require(value >= 0, f"{name} must not be negative, got {value}")
        height, width, _ = self.grid
        require(
            2**self.stages <= min(height, width),
            f"stages={self.stages} halves a grid of {height}x{width} codes to less "
            "than one cell: lower it",
        )
        # It checks its options as it is made.
        _ = self.decoder

    @property
    def decoder(self) -> Prior:
        """The PixelCNN p(codes | map)."""
        return Prior(
            grid=self.grid,
            num_codes=self.num_codes,
            map_features=self.map_features,
            layers=self.layers,
            units=self.units,
            kernel_size=self.kernel_size,
            cell_layers=self.cell_layers,
            dropout=self.dropout,
            dtype=self.dtype,
            remat=self.remat,
        )

    @property
    def without_latents(self) -> Prior:
        """The same PixelCNN without a map: a prior that knows of no latents."""
        return dataclasses.replace(self.decoder, map_features=0)

    @property
    def codes_per_frame(self) -> int:
        """How many codes the latents stand for."""
        return math.prod(self.grid)

    def encode(self, params: Params, codes: Int[AnyArray, "B H W C"]) -> Array:
        """Return the latents of frames, `[B, ...]`, as the other methods take them."""
        raise NotImplementedError

    def log_prob(
        self, params: Params, codes: Int[AnyArray, "B H W C"], latents: AnyArray
    ) -> Float[Array, " B"]:
        """Return log p(codes | latents) of each frame, in nats.

        Raises:
          UserError: the codes or the latents are not of this model.
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
        """Draw codes from p(codes | latents), a frame for each; see `Prior.sample`.

        Another `progress` compiles again, as another number of frames does.

        Raises:
          UserError: the latents are not of this model, or an option cannot be.
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
        """Raise UserError unless these are latents of this model."""
        raise NotImplementedError

    def _vectors(self, params: Params, latents: AnyArray) -> Float[Array, "B N"]:
        """Return what the decoder reads of latents."""
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
        """Initialise at random; the encoder gives `heads` numbers for each of z."""
        encoder_key, map_key, pixelcnn_key = jax.random.split(key, 3)
        z = jnp.zeros((1, self.latents * self.dim))
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
        return GlobalEncoder(
            out_features=heads * self.latents * self.dim,
            num_codes=self.num_codes,
            codes_per_cell=self.grid[-1],
            **self._sizes,
        )

    @property
    def _to_map(self) -> GlobalDecoder:
        return GlobalDecoder(self.grid[:2], self.map_features, **self._sizes)

    @property
    def _sizes(self) -> dict[str, Any]:
        return {
            "units": self.encoder_units,
            "stages": self.stages,
            "residual_blocks": self.residual_blocks,
            "residual_units": self.residual_units,
            "dtype": jnp.dtype(self.dtype),
        }
