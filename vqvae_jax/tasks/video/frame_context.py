"""Condition a frame's PixelCNN on earlier frames and actions (section 4.4).

The input is shifted by one frame, so that the input at a frame is the previous frame
and the action between them. Each layer can then also read its current frame. As in the
PixelCNN, the network is causal without masked kernels.

`__call__` computes the maps of a whole clip at once, `next_frame` the same maps frame
by frame, each layer from a queue of the inputs it still needs.
"""

from collections.abc import Callable
from typing import Annotated, Any

import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float, Int

from vqvae_jax.networks.cell_decoder import CodeEmbedding, gate
from vqvae_jax.networks.convolution import Conv
from vqvae_jax.options import GIVEN, ODD, DType


class FrameContext(nn.Module):
    """Computes a feature map for each frame of a clip from the earlier frames.

    Each layer convolves over the grid at two frames: the current one and the one 1, 2,
    4, ... frames earlier, so that L layers see 2^L frames. The action is part of the
    input and is also projected into the gates of every layer, because it decides where
    in the earlier frames to look.

    Attributes:
      num_codes: K, number of categories.
      codes_per_cell: C, number of codes of a cell.
      num_actions: number of actions between frames, 0 for none.
      layers: number of gated residual layers.
      channels: channels of the layers and of the map.
      kernel_size: odd; width of the kernels in cells of the grid.
      dropout: rate on the gated outputs, active if a "dropout" PRNG key is given, as in
        training.
      dtype: compute dtype; parameters are float32.
    """

    num_codes: Annotated[int, GIVEN, ">= 1"] = 1
    codes_per_cell: Annotated[int, GIVEN, ">= 1"] = 1
    num_actions: Annotated[int, GIVEN, ">= 0"] = 0
    layers: Annotated[int, ">= 0", "<= 1000"] = 4
    channels: Annotated[int, ">= 1"] = 128
    kernel_size: Annotated[int, ODD, "> 1", "<= 255"] = 3
    dropout: Annotated[float, ">= 0", "< 1"] = 0.0
    dtype: DType = "float32"

    def __call__(
        self,
        codes: Int[Array, "B T H W C"],
        actions: Int[Array, "B S"] | None = None,
    ) -> Float[Array, "B T H W F"]:
        """Return maps; the map of frame t depends only on earlier frames and actions.

        Args:
          codes: codes of the frames of a clip; the last frame is not read.
          actions: the S = T - 1 actions from each frame to the next, or None if there
            are no actions.
        """

        def shifted(x):
            return jnp.pad(x, [(0, 0), (1, 0)] + [(0, 0)] * (x.ndim - 2))

        return self._maps(
            codes[:, :-1], actions, shifted, lambda x, layer: _delayed(x, 2**layer)
        )

    def next_frame(
        self,
        queues: tuple[Float[Array, "_ B H W F"], ...],
        time: Int[Array, ""],
        action: Int[Array, " B"] | None,
        previous: Int[Array, "B H W C"],
    ) -> tuple[tuple, Float[Array, "B H W F"]]:
        """Return the map of one frame.

        Args:
          queues: for each layer, its inputs at this frame and the d = 2**layer frames
            before; frame t is at index t modulo d + 1. Initially `empty_queues`.
          time: t.
          action: the action that led to this frame, or None if there are no actions;
            not read for the first frame.
          previous: codes of the previous frame; not read for the first frame.

        Returns:
          The next queues and the map.
        """
        next_queues = []

        def from_queue(x, layer):
            size = 2**layer + 1
            # Write before reading: XLA copies a queue that is read first.
            queue = lax.dynamic_update_index_in_dim(
                queues[layer], x[:, 0], time % size, 0
            )
            next_queues.append(queue)
            past = lax.dynamic_index_in_dim(queue, (time + 1) % size, keepdims=False)
            return past[:, None]

        maps = self._maps(
            previous[:, None],
            None if action is None else action[:, None],
            lambda x: jnp.where(time > 0, x, 0),
            from_queue,
        )
        return tuple(next_queues), maps[:, 0]

    def empty_queues(self, *shape: int) -> tuple[Float[Array, "_ B H W F"], ...]:
        """Return the queues before the first frame, for a shape `(B, H, W)`."""
        return tuple(
            jnp.zeros((2**layer + 1, *shape, self.channels), self.dtype)
            for layer in range(self.layers)
        )

    @nn.compact
    def _maps(
        self,
        codes: Int[Array, "B S H W C"],
        actions: Int[Array, "B S"] | None,
        shift: Callable[[Any], Any],
        past: Callable[[Any, int], Any],
    ) -> Float[Array, "B T H W F"]:
        """Compute maps; shared by `__call__` and `next_frame`.

        `shift` moves the embedding of the previous frame to each frame. `past` maps the
        input and the index of a layer to its input 2**layer frames earlier.
        """
        embed = CodeEmbedding(self.num_codes, self.codes_per_cell, self.channels)
        x = shift(embed(codes).sum(axis=-2).astype(self.dtype))
        action = None
        if self.num_actions:
            embedded = nn.Embed(self.num_actions, self.channels, dtype=self.dtype)(
                actions
            )
            action = shift(embedded)
            # Add to the input too: layers that look far back would miss some actions.
            x = x + action[:, :, None, None, :]
        for layer in range(self.layers):
            x = x + self._layer(x, past(x, layer), action)
        return nn.relu(x)

    def _layer(self, x, past, action) -> Float[Array, "B T H W F"]:
        batch, time, *grid, _ = x.shape
        both = jnp.concatenate([x, past], axis=-1)
        # Convolve all frames as one batch of grids.
        both = both.reshape(batch * time, *grid, 2 * self.channels)
        kernel = (self.kernel_size, self.kernel_size)
        y = Conv(2 * self.channels, kernel, dtype=self.dtype)(nn.relu(both))
        y = y.reshape(batch, time, *grid, -1)
        if action is not None:
            projected = nn.Dense(2 * self.channels, dtype=self.dtype)(action)
            y = y + projected[:, :, None, None, :]
        deterministic = not self.has_rng("dropout")
        y = nn.Dropout(self.dropout)(gate(y), deterministic=deterministic)
        return nn.Dense(self.channels, dtype=self.dtype)(y)


def _delayed(x: Float[Array, "B T H W F"], frames: int) -> Float[Array, "B T H W F"]:
    """Delay clips by some frames, padding with zeros."""
    before = [(0, 0), (frames, 0), (0, 0), (0, 0), (0, 0)]
    return jnp.pad(x, before)[:, : x.shape[1]]
