"""One layer of the gated PixelCNN, in one form for whole grids and for single cells."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from vqvae_jax.networks.cell_decoder import gate
from vqvae_jax.networks.convolution import Conv


class GatedLayer(nn.Module):
    """Figure 2 of the gated PixelCNN paper, with a skip connection beside the residual.

    Each stack reads a window of its own input that ends where it writes. Over a whole
    grid the window is the grid behind `reach` rows or columns of zeros; to continue a
    grid it is the last `reach` rows or cells and the new one, without zeros. The sums
    are the same.

    Attributes:
      units: channels of both stacks.
      reach: rows up, and cells left and right, that the layer sees.
      dropout: rate on the gates, active where a "dropout" key is given.
      dtype: compute dtype.
    """

    units: int
    reach: int
    dropout: float
    dtype: DTypeLike

    def setup(self):
        """Make the convolutions and projections of both stacks."""
        gates = 2 * self.units
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
        """Return the stack's rows, and what they and the condition tell the other.

        H is R + zeros_above - reach; `features` are those of the rows that come out.
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
        """Return the stack's cells, W = C + zeros_left - reach, and the skip's."""
        h = self.horizontal(window, padding=((0, 0), (zeros_left, 0)))
        output = self.drop(gate(h + guide), deterministic=not self.has_rng("dropout"))
        residual, skip = jnp.split(self.residual_and_skip(output), 2, axis=-1)
        return window[:, :, -guide.shape[2] :] + residual, skip
