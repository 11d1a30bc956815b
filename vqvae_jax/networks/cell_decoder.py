"""Autoregressive prediction of the categories inside one cell."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, PRNGKeyArray

from vqvae_jax.runtime.arrays import AnyArray


def gate(x: Float[Array, "*shape F2"]) -> Float[Array, "*shape F"]:
    """Apply the gated activation: tanh of one half times sigmoid of the other."""
    a, b = jnp.split(x, 2, axis=-1)
    return jnp.tanh(a) * jax.nn.sigmoid(b)


class CodeEmbedding(nn.Module):
    """Embedding tables per position in a cell: `[..., C]` -> `[..., C, channels]`."""

    num_codes: int
    codes_per_cell: int
    channels: int

    def setup(self):
        """Create the tables `[C, K, channels]`."""
        self.tables = self.param(
            "tables",
            nn.initializers.normal(1.0 / self.codes_per_cell**0.5),
            (self.codes_per_cell, self.num_codes, self.channels),
        )

    def __call__(self, codes: Int[Array, "*cells C"]) -> Float[Array, "*cells C F"]:
        """Embed all categories of cells in float32."""
        places = jnp.arange(self.codes_per_cell)
        return self.tables[places.reshape((1,) * (codes.ndim - 1) + (-1,)), codes]

    def at(self, codes: Int[Array, " B"], place: Int[Array, ""]) -> Float[Array, "B F"]:
        """Embed the categories at one position of a cell."""
        return self.tables[place, codes]


def projected(
    key: PRNGKeyArray,
    vectors: Float[AnyArray, "C K D"],
    tables: Float[Array, "C K F"],
) -> Float[Array, "C K F"]:
    """Return initial tables of a `CodeEmbedding` that keep the distances of vectors.

    Center the vectors of each position, project them at random to the width of the
    tables and scale them to the standard deviation of the tables. Vectors that are
    close stay close.
    """
    centred = vectors - vectors.mean(axis=1, keepdims=True)
    random = jax.random.normal(key, (*vectors.shape[::2], tables.shape[-1]))
    found = jnp.einsum("ckd,cdf->ckf", centred, random)
    return found * tables.std() / jnp.maximum(found.std(), 1e-12)


class CellDecoder(nn.Module):
    """Logits of a cell's C categories, each given the context and the earlier ones.

    The embeddings of the categories before c, from one table per position, are summed:
    the sum identifies all of them and has the same cost for every c.
    """

    num_codes: int
    codes_per_cell: int
    channels: int
    layers: int
    dropout: float
    dtype: DTypeLike

    def setup(self):
        """Create the parameters that `__call__` and `next_code` share."""
        self.embedding = CodeEmbedding(
            self.num_codes, self.codes_per_cell, self.channels
        )
        self.gates = [
            nn.Dense(2 * self.channels, dtype=self.dtype) for _ in range(self.layers)
        ]
        self.residuals = [
            nn.Dense(self.channels, dtype=self.dtype) for _ in range(self.layers)
        ]
        self.drop = nn.Dropout(self.dropout)
        sizes = self.codes_per_cell, self.channels, self.num_codes
        self.place = self.param("place", nn.initializers.normal(0.02), sizes[:2])
        self.kernel = self.param(
            "kernel", nn.initializers.lecun_normal(batch_axis=0), sizes
        )
        self.bias = self.param("bias", nn.initializers.zeros, sizes[::2])

    def __call__(
        self, context: Float[Array, "*cells F"], codes: Int[Array, "*cells C"]
    ) -> Float[Array, "*cells C K"]:
        """Return the logits of all categories at once."""
        cells = (1,) * (codes.ndim - 1)
        before = [(0, 0)] * (codes.ndim - 1) + [(1, 0), (0, 0)]
        embedded = jnp.pad(self.embedding(codes)[..., :-1, :], before)
        earlier = jnp.cumsum(embedded, axis=-2)
        place = self.place.reshape(cells + self.place.shape)
        x = self._features(context[..., None, :], earlier + place)
        logits = jnp.einsum("...cf,cfk->...ck", x, self.kernel)
        return logits + self.bias.reshape(cells + self.bias.shape)

    def next_code(
        self,
        context: Float[Array, "B F"],
        earlier: Float[Array, "B F"],
        place: Int[Array, ""],
    ) -> Float[Array, "B K"]:
        """Return the logits at one position, given the sum of earlier embeddings."""
        x = self._features(context, earlier + self.place[place][None])
        return x @ self.kernel[place] + self.bias[place][None]

    def _features(self, context, known):
        x = context + known.astype(self.dtype)
        for to_gates, residual in zip(self.gates, self.residuals, strict=True):
            y = gate(to_gates(nn.relu(x)))
            y = self.drop(y, deterministic=not self.has_rng("dropout"))
            x = x + residual(y)
        # Cast the operands, not only the sums, to float32: XLA:CPU lacks this product
        # for bfloat16, and elsewhere the default precision rounds operands anyway.
        return nn.relu(x).astype(jnp.float32)
