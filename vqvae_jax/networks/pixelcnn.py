"""The gated PixelCNN (van den Oord et al., 2016b) over grids of categories.

One module serves as the prior over codes (1 or 10 per cell), as a model of pixels (3
channels of 256 values per cell) and as a decoder. Cells are in raster order, and the
categories of a cell are in sequence:

    p(z) = prod_cells prod_c p(z[cell, c] | z[earlier cells], z[cell, <c], condition).

No kernel is masked. The input of the vertical stack is shifted down by one row, and
that of the horizontal stack right by one column, so that layers may read their own row
or column. One-sided padding excludes the rest of the future. No half of a kernel is
computed in vain, and there is no blind spot.

`__call__` computes all logits of a grid at once. `next_row`, `next_cell` and
`next_code` compute the same logits step by step, each from a cache of the few rows or
cells that a layer reads; `sampling.cached` uses them.
"""

from typing import Annotated, NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from vqvae_jax import options
from vqvae_jax.networks.cell_decoder import CellDecoder, CodeEmbedding, gate
from vqvae_jax.networks.convolution import Conv
from vqvae_jax.options import GIVEN, ODD, DType
from vqvae_jax.runtime.errors import require


class Condition(NamedTuple):
    """The condition of a grid's categories; None for parts that are not given.

    labels: `[B]` int, classes.
    vector: `[B, V]`, a description of a whole grid.
    features: `[B, H, W, M]`, a map over the same grid.
    """

    labels: Int[Array, " B"] | None = None
    vector: Float[Array, "B V"] | None = None
    features: Float[Array, "B H W M"] | None = None


UNCONDITIONAL = Condition()


class GatedLayer(nn.Module):
    """Figure 2 of the gated PixelCNN paper, with a skip connection added.

    Each stack reads a window of its input that ends at the position it writes. For a
    whole grid the window is the grid padded with `reach` leading rows or columns of
    zeros; to extend a grid it is the last `reach` rows or cells and the new one,
    without padding. Both compute the same sums.

    Attributes:
      channels: channels of both stacks.
      reach: number of rows up, and cells left and right, that the layer reads.
      dropout: dropout rate after the gates, active if a "dropout" key is passed.
      dtype: compute dtype.
    """

    channels: int
    reach: int
    dropout: float
    dtype: DTypeLike

    def setup(self):
        """Create the convolutions and projections of both stacks."""
        gates = 2 * self.channels
        self.vertical = Conv(
            gates, (self.reach + 1, 2 * self.reach + 1), dtype=self.dtype
        )
        self.horizontal = Conv(gates, (1, self.reach + 1), dtype=self.dtype)
        self.vertical_to_horizontal = nn.Dense(gates, dtype=self.dtype)
        self.residual_and_skip = nn.Dense(gates, dtype=self.dtype)
        self.drop = nn.Dropout(self.dropout)
        self.vector = nn.Dense(2 * gates, dtype=self.dtype)
        self.features = nn.Dense(2 * gates, dtype=self.dtype)

    def vertical_stack(
        self,
        window: Float[Array, "B R W F"],
        vector: Float[Array, "B V"] | None,
        features: Float[Array, "B H W M"] | None,
        *,
        zeros_above: int,
    ) -> tuple[Float[Array, "B H W F"], Float[Array, "B H W F2"]]:
        """Return the stack's rows and the guide, its input to the horizontal stack.

        H is R + zeros_above - reach; `features` are those of the output rows.
        """
        padding = ((zeros_above, 0), (self.reach, self.reach))
        v = self.vertical(window, padding=padding)
        guide = self.vertical_to_horizontal(v)
        for condition, project in (
            (None if vector is None else vector[:, None, None, :], self.vector),
            (features, self.features),
        ):
            if condition is not None:
                for_v, for_h = jnp.split(project(condition), 2, axis=-1)
                v, guide = v + for_v, guide + for_h
        return gate(v), guide

    def horizontal_stack(
        self,
        window: Float[Array, "B H C F"],
        guide: Float[Array, "B H W F2"],
        *,
        zeros_left: int,
    ) -> tuple[Float[Array, "B H W F"], Float[Array, "B H W F"]]:
        """Return the stack's cells and the skip output, W = C + zeros_left - reach."""
        h = self.horizontal(window, padding=((0, 0), (zeros_left, 0)))
        output = self.drop(gate(h + guide), deterministic=not self.has_rng("dropout"))
        residual, skip = jnp.split(self.residual_and_skip(output), 2, axis=-1)
        return window[:, :, -guide.shape[2] :] + residual, skip


class PixelCNN(nn.Module):
    """Logits of each category given the categories before it.

    Each part of a condition is projected into the gates of every layer.

    Attributes:
      num_codes: K, the categories.
      codes_per_cell: C, number of codes of a cell.
      num_classes: labels to condition on, 0 for none.
      vector_features: V, size of a vector to condition on, 0 for none.
      map_features: M, channels of a map to condition on, 0 for none.
      layers: gated layers.
      channels: channels of both stacks.
      kernel_size: odd; a layer sees (kernel_size - 1) / 2 cells up, left and right.
      cell_layers: residual layers between a cell's context and its logits.
      dropout: rate on the gates, active if a "dropout" PRNG key is given, as in
        training.
      dtype: compute dtype; parameters and logits are float32.
      remat: recompute activations inside layers for the gradient of `__call__` instead
        of keeping them.
    """

    num_codes: Annotated[int, GIVEN, ">= 1"] = 1
    codes_per_cell: Annotated[int, GIVEN, ">= 1"] = 1
    num_classes: Annotated[int, GIVEN, ">= 0"] = 0
    vector_features: Annotated[int, GIVEN, ">= 0"] = 0
    map_features: Annotated[int, GIVEN, ">= 0"] = 0
    layers: Annotated[int, ">= 1", "<= 1000"] = 15
    channels: Annotated[int, ">= 1"] = 128
    kernel_size: Annotated[int, ODD, "> 1", "<= 255"] = 5
    cell_layers: Annotated[int, ">= 0", "<= 1000"] = 1
    dropout: Annotated[float, ">= 0", "< 1"] = 0.0
    dtype: DType = "float32"
    remat: bool = False

    def setup(self):
        """Create the layers that both forms share."""
        options.check(self)
        self.embedding = CodeEmbedding(
            self.num_codes, self.codes_per_cell, self.channels
        )
        if self.num_classes:
            self.label_embedding = nn.Embed(
                self.num_classes, self.channels, dtype=self.dtype
            )
        self.stack = [
            GatedLayer(self.channels, self.kernel_size // 2, self.dropout, self.dtype)
            for _ in range(self.layers)
        ]
        self.to_context = nn.Dense(self.channels, dtype=self.dtype)
        self.cell_decoder = CellDecoder(
            self.num_codes,
            self.codes_per_cell,
            self.channels,
            self.cell_layers,
            self.dropout,
            self.dtype,
        )

    def __call__(
        self, codes: Int[Array, "B H W C"], condition: Condition = UNCONDITIONAL
    ) -> Float[Array, "B H W C K"]:
        """Return logits `[B, H, W, C, K]` float32 for codes in 0 ... K-1.

        Raises:
          UserError: C is not codes_per_cell, or a part of the condition is missing,
            unexpected, or does not fit this batch and grid.
        """
        self.check(codes.shape, condition)
        cells = self.embed(codes)
        vertical, horizontal = _down(cells), _right(cells)
        vector = self._vector(condition)
        features = self._features(condition.features)
        skip = jnp.zeros_like(cells)
        over_grid = nn.remat(_over_grid) if self.remat else _over_grid
        for layer in self.stack:
            vertical, horizontal, output = over_grid(
                layer, vertical, horizontal, vector, features
            )
            skip = skip + output
        return self.cell_decoder(self._context(skip), codes)

    def embed(self, codes: Int[Array, "B H W C"]) -> Float[Array, "B H W F"]:
        """Return the stacks' input for whole cells."""
        return self.embedding(codes).sum(axis=-2).astype(self.dtype)

    def next_row(
        self,
        cache: tuple[Float[Array, "B R W F"], ...],
        above: Float[Array, "B 1 W F"],
        condition: Condition,
    ) -> tuple[tuple, tuple]:
        """Advance the vertical stack by one row.

        Args:
          cache: for each layer the last `reach` rows of its input, zeros at first.
          above: the embedded row above, zeros for the first.
          condition: `features` `[B, 1, W, M]` are those of this row.

        Returns the next cache, and for each layer the guide `[B, 1, W, 2F]` of the
        horizontal stack.
        """
        vector = self._vector(condition)
        features = self._features(condition.features)
        vertical, next_cache, guides = above, [], []
        for layer, past in zip(self.stack, cache, strict=True):
            window = jnp.concatenate([past, vertical], axis=1)
            next_cache.append(window[:, 1:])
            vertical, guide = layer.vertical_stack(
                window, vector, features, zeros_above=0
            )
            guides.append(guide)
        return tuple(next_cache), tuple(guides)

    def next_cell(
        self,
        cache: tuple[Float[Array, "B 1 R F"], ...],
        left: Float[Array, "B 1 1 F"],
        guides: tuple[Float[Array, "B 1 1 F2"], ...],
    ) -> tuple[tuple, Float[Array, "B F"]]:
        """Advance the horizontal stack by one cell.

        Args:
          cache: for each layer the last `reach` cells of its input, zeros at first.
          left: the embedded cell to the left, zeros for the first.
          guides: this column of the guides from `next_row`.

        Returns the next cache and the cell's context.
        """
        horizontal, skip, next_cache = left, jnp.zeros_like(left), []
        for layer, past, guide in zip(self.stack, cache, guides, strict=True):
            window = jnp.concatenate([past, horizontal], axis=2)
            next_cache.append(window[:, :, 1:])
            horizontal, output = layer.horizontal_stack(window, guide, zeros_left=0)
            skip = skip + output
        return tuple(next_cache), self._context(skip)[:, 0, 0]

    def next_code(
        self,
        context: Float[Array, "B F"],
        earlier: Float[Array, "B F"],
        place: Int[Array, ""],
    ) -> Float[Array, "B K"]:
        """Return the logits at an index of the cell.

        `earlier` is the sum of `embed_code` over the indices before, zeros at first.
        """
        return self.cell_decoder.next_code(context, earlier, place)

    def embed_code(
        self, codes: Int[Array, " B"], place: Int[Array, ""]
    ) -> Float[Array, "B F"]:
        """Return the embedding that later indices of the cell read; float32."""
        return self.cell_decoder.embedding.at(codes, place)

    def check(self, shape: tuple[int, ...], condition: Condition) -> None:
        """Raise UserError unless a shape of codes and a condition fit this network."""
        require(
            len(shape) == 4 and shape[-1] == self.codes_per_cell,
            f"codes must have shape [B, H, W, {self.codes_per_cell}], got {shape}",
        )
        batch, height, width, _ = shape
        for name, size, expected in (
            ("labels", self.num_classes, (batch,)),
            ("vector", self.vector_features, (batch, self.vector_features)),
            ("features", self.map_features, (batch, height, width, self.map_features)),
        ):
            value = getattr(condition, name)
            require(
                value is None or size > 0,
                f"{name} were given to a PixelCNN that was built without them",
            )
            require(
                value is not None or size == 0,
                f"{name} of shape {list(expected)} are needed: the PixelCNN was built "
                f"for {size} {'classes' if name == 'labels' else 'channels'}",
            )
            require(
                value is None or value.shape == expected,
                f"{name} must have shape {list(expected)} for {batch} grids of "
                f"{height}x{width} cells, got {list(getattr(value, 'shape', ()))}",
            )

    def _vector(self, condition):
        """Return the conditions of whole grids as one vector; None without any."""
        parts = []
        if condition.labels is not None:
            parts.append(self.label_embedding(condition.labels))
        if condition.vector is not None:
            parts.append(condition.vector.astype(self.dtype))
        return jnp.concatenate(parts, axis=-1) if parts else None

    def _features(self, features):
        return None if features is None else features.astype(self.dtype)

    def _context(self, skip):
        return self.to_context(nn.relu(skip))


def _over_grid(layer: GatedLayer, vertical, horizontal, vector, features):
    """Return both stacks of a whole grid after a layer, and its skip output."""
    vertical, guide = layer.vertical_stack(
        vertical, vector, features, zeros_above=layer.reach
    )
    horizontal, output = layer.horizontal_stack(
        horizontal, guide, zeros_left=layer.reach
    )
    return vertical, horizontal, output


def _down(x: Float[Array, "B H W F"]) -> Float[Array, "B H W F"]:
    """Shift the grid down by a row: each cell holds the one above it."""
    return jnp.pad(x, ((0, 0), (1, 0), (0, 0), (0, 0)))[:, :-1]


def _right(x: Float[Array, "B H W F"]) -> Float[Array, "B H W F"]:
    """Shift the grid right by a column: each cell holds the one left of it."""
    return jnp.pad(x, ((0, 0), (0, 0), (1, 0), (0, 0)))[:, :, :-1]
