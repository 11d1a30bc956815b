"""What a frame's PixelCNN is told of the frames and actions before it (section 4.4).

The past comes in as one grid moved by a frame, so that a frame's place holds the frame
before and the action between; from there on each layer may look at its own time too. As
in the PixelCNN no kernel is masked, and no later frame is ever read.
"""

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from vqvae_jax.networks.cell_decoder import CodeEmbedding, gate
from vqvae_jax.networks.convolution import Conv


class FrameContext(nn.Module):
    """A map for each frame of a clip, from the frames before it.

    A layer convolves over the grid and over two times: its own and one 1, 2, 4, ...
    frames earlier, so that L layers see 2^L frames. The action is part of the input and
    is projected into every layer's gates: it says where to look.

    Attributes:
      num_codes: K, the categories.
      codes_per_cell: C.
      num_actions: actions between frames, 0 for none.
      layers: gated residual layers.
      units: their channels, and the map's.
      kernel_size: odd; cells of the grid that a layer sees.
      dropout: rate on the gates, active where a "dropout" key is given.
      dtype: compute dtype; parameters are float32.
    """

    num_codes: int
    codes_per_cell: int = 1
    num_actions: int = 0
    layers: int = 4
    units: int = 128
    kernel_size: int = 3
    dropout: float = 0.0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        codes: Int[Array, "B T H W C"],
        actions: Int[Array, "B S"] | None = None,
    ) -> Float[Array, "B T H W F"]:
        """Return maps, of which that of frame t depends on what is before frame t.

        Args:
          codes: of the frames of a clip; the last one is not read.
          actions: what led from each frame to the next one, S = T - 1 of them, where
            there are actions.
        """
        embed = CodeEmbedding(self.num_codes, self.codes_per_cell, self.units)
        x = _later(embed(codes).sum(axis=-2).astype(self.dtype), 1)
        action = None
        if self.num_actions:
            embedded = nn.Embed(self.num_actions, self.units, dtype=self.dtype)(actions)
            action = jnp.pad(embedded, ((0, 0), (1, 0), (0, 0)))
            # In the input too, or layers that look far back would miss some actions.
            x = x + action[:, :, None, None, :]
        for layer in range(self.layers):
            x = x + self._layer(x, action, delay=2**layer)
        return nn.relu(x)

    def _layer(self, x, action, *, delay: int) -> Float[Array, "B T H W F"]:
        batch, time, *grid, _ = x.shape
        both = jnp.concatenate([x, _later(x, delay)], axis=-1)
        # All times are convolved as one batch of grids.
        both = both.reshape(batch * time, *grid, 2 * self.units)
        kernel = (self.kernel_size, self.kernel_size)
        y = Conv(2 * self.units, kernel, dtype=self.dtype)(nn.relu(both))
        y = y.reshape(batch, time, *grid, -1)
        if action is not None:
            told = nn.Dense(2 * self.units, dtype=self.dtype)(action)
            y = y + told[:, :, None, None, :]
        deterministic = not self.has_rng("dropout")
        y = nn.Dropout(self.dropout)(gate(y), deterministic=deterministic)
        return nn.Dense(self.units, dtype=self.dtype)(y)


def _later(x: Float[Array, "B T H W F"], frames: int) -> Float[Array, "B T H W F"]:
    """Move a clip by some frames; zeros come before its beginning."""
    before = [(0, 0), (frames, 0), (0, 0), (0, 0), (0, 0)]
    return jnp.pad(x, before)[:, : x.shape[1]]
