"""The gated PixelCNN (van den Oord et al., 2016b) over grids of categories.

One module serves as the prior over codes (1 or 10 a cell), as a model of pixels (3
channels of 256 values a cell) and as a decoder. Cells come in raster order, and the
categories of a cell one after the other:

    p(z) = prod_cells prod_c p(z[cell, c] | z[earlier cells], z[cell, <c], label).

No kernel is masked. The vertical stack starts from its input moved down by one row, the
horizontal stack from its input moved right by one column; from there on each may look
at its own row or column too. Padding on one side keeps the rest of the future out, half
of each kernel is not computed in vain, and there is no blind spot.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from vqvae_jax.errors import require
from vqvae_jax.networks.convolution import Conv


class PixelCNN(nn.Module):
    """Logits of every category of every cell, from the categories before it.

    Attributes:
      num_codes: K, the categories.
      codes_per_cell: C.
      num_classes: labels to condition on, 0 for none.
      layers: gated layers.
      units: channels of both stacks.
      kernel_size: odd; a layer sees (kernel_size - 1) / 2 cells up, left and right.
      cell_layers: residual layers between a cell's context and its logits.
      dropout: rate on the gates, active where a "dropout" key is given.
      dtype: compute dtype; parameters and logits are float32.
    """

    num_codes: int
    codes_per_cell: int = 1
    num_classes: int = 0
    layers: int = 15
    units: int = 128
    kernel_size: int = 5
    cell_layers: int = 1
    dropout: float = 0.0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        codes: Int[Array, "B H W C"],
        labels: Int[Array, " B"] | None = None,
    ) -> Float[Array, "B H W C K"]:
        """Return logits `[B, H, W, C, K]` float32 for codes in 0 ... K-1.

        Raises:
          UserError: C is not codes_per_cell, or labels are missing or not wanted.
        """
        self._check(codes, labels)
        embedding = CodeEmbedding(
            self.num_codes, self.codes_per_cell, self.units, self.dtype
        )
        cells = embedding(codes).sum(axis=-2)
        condition = None
        if labels is not None:
            condition = nn.Embed(self.num_classes, self.units, dtype=self.dtype)(labels)
        vertical, horizontal = _down(cells), _right(cells)
        skip = jnp.zeros_like(cells)
        for _ in range(self.layers):
            layer = GatedLayer(self.units, self.kernel_size, self.dropout, self.dtype)
            vertical, horizontal, output = layer(vertical, horizontal, condition)
            skip = skip + output
        context = nn.Dense(self.units, dtype=self.dtype)(nn.relu(skip))
        return CellDecoder(
            self.num_codes,
            self.codes_per_cell,
            self.units,
            self.cell_layers,
            self.dropout,
            self.dtype,
        )(context, codes)

    def _check(self, codes, labels):
        require(
            codes.ndim == 4 and codes.shape[-1] == self.codes_per_cell,
            f"codes must have shape [B, H, W, {self.codes_per_cell}], got "
            f"{codes.shape}",
        )
        require(
            self.kernel_size % 2 == 1,
            f"prior.kernel_size must be odd, got {self.kernel_size}",
        )
        require(
            (labels is None) == (self.num_classes == 0),
            f"labels are needed: the PixelCNN was built for {self.num_classes} classes"
            if labels is None
            else "labels were given to a PixelCNN built without classes",
        )


class GatedLayer(nn.Module):
    """One layer of both stacks, with residual and skip connections in the horizontal.

    Takes and returns `[B, H, W, units]`; the third result is for the skip connection.
    `condition` is `[B, F]`, projected into the gates of both stacks.
    """

    units: int
    kernel_size: int
    dropout: float
    dtype: DTypeLike

    @nn.compact
    def __call__(self, vertical, horizontal, condition=None):
        reach = self.kernel_size // 2
        gates = 2 * self.units
        v = Conv(
            gates,
            (reach + 1, self.kernel_size),
            padding=((reach, 0), (reach, reach)),
            dtype=self.dtype,
            name="vertical",
        )(vertical)
        h = Conv(
            gates,
            (1, reach + 1),
            padding=((0, 0), (reach, 0)),
            dtype=self.dtype,
            name="horizontal",
        )(horizontal)
        h = h + nn.Dense(gates, dtype=self.dtype, name="vertical_to_horizontal")(v)
        if condition is not None:
            project = nn.Dense(2 * gates, dtype=self.dtype, name="condition")
            for_v, for_h = jnp.split(project(condition)[:, None, None, :], 2, axis=-1)
            v, h = v + for_v, h + for_h
        vertical = _gate(v)
        output = _gate(h)
        output = nn.Dropout(self.dropout)(
            output, deterministic=not self.has_rng("dropout")
        )
        both = nn.Dense(gates, dtype=self.dtype, name="residual_and_skip")(output)
        residual, skip = jnp.split(both, 2, axis=-1)
        return vertical, horizontal + residual, skip


class CellDecoder(nn.Module):
    """Logits of a cell's C categories, each from the context and those before it.

    The embeddings of the categories before c, from tables of their own, are summed: the
    sum tells all of them, and costs the same for every c.
    """

    num_codes: int
    codes_per_cell: int
    units: int
    layers: int
    dropout: float
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, context: Float[Array, "*cells F"], codes: Int[Array, "*cells C"]
    ) -> Float[Array, "*cells C K"]:
        embedding = CodeEmbedding(
            self.num_codes, self.codes_per_cell, self.units, self.dtype
        )
        embedded = embedding(codes)
        before = [(0, 0)] * (codes.ndim - 1) + [(1, 0), (0, 0)]
        earlier = jnp.cumsum(jnp.pad(embedded, before)[..., :-1, :], axis=-2)
        place = self.param(
            "place", nn.initializers.normal(0.02), (self.codes_per_cell, self.units)
        )
        place = place.reshape((1,) * (codes.ndim - 1) + place.shape).astype(self.dtype)
        x = context[..., None, :] + earlier + place
        for _ in range(self.layers):
            gates = nn.Dense(2 * self.units, dtype=self.dtype)(nn.relu(x))
            y = nn.Dropout(self.dropout)(
                _gate(gates), deterministic=not self.has_rng("dropout")
            )
            x = x + nn.Dense(self.units, dtype=self.dtype)(y)
        kernel = self.param(
            "kernel",
            nn.initializers.lecun_normal(batch_axis=0),
            (self.codes_per_cell, self.units, self.num_codes),
        )
        bias = self.param(
            "bias", nn.initializers.zeros, (self.codes_per_cell, self.num_codes)
        )
        # Float32 operands, not only sums: XLA:CPU has no such product of bfloat16s, and
        # elsewhere the default precision rounds them as it multiplies.
        x = nn.relu(x).astype(jnp.float32)
        logits = jnp.einsum("...cf,cfk->...ck", x, kernel)
        return logits + bias.reshape((1,) * (codes.ndim - 1) + bias.shape)


class CodeEmbedding(nn.Module):
    """An embedding table for each place in a cell: `[..., C]` -> `[..., C, units]`."""

    num_codes: int
    codes_per_cell: int
    units: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, codes: Int[Array, "*cells C"]) -> Float[Array, "*cells C F"]:
        tables = self.param(
            "tables",
            nn.initializers.normal(1.0 / self.codes_per_cell**0.5),
            (self.codes_per_cell, self.num_codes, self.units),
        )
        places = jnp.arange(self.codes_per_cell)
        places = places.reshape((1,) * (codes.ndim - 1) + places.shape)
        return tables[places, codes].astype(self.dtype)


def _gate(x: Float[Array, "*shape F2"]) -> Float[Array, "*shape F"]:
    """Apply the gated activation unit: tanh of one half times sigmoid of the other."""
    a, b = jnp.split(x, 2, axis=-1)
    return jnp.tanh(a) * jax.nn.sigmoid(b)


def _down(x: Float[Array, "B H W F"]) -> Float[Array, "B H W F"]:
    """Move the grid down by a row, so that a place holds what is above it."""
    return jnp.pad(x, ((0, 0), (1, 0), (0, 0), (0, 0)))[:, :-1]


def _right(x: Float[Array, "B H W F"]) -> Float[Array, "B H W F"]:
    """Move the grid right by a column, so that a place holds what is left of it."""
    return jnp.pad(x, ((0, 0), (0, 0), (1, 0), (0, 0)))[:, :, :-1]
