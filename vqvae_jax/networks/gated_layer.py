"""The gated PixelCNN layer, shared by training on grids and sampling of cells."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from vqvae_jax.networks.cell_decoder import gate
from vqvae_jax.networks.convolution import Conv


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
