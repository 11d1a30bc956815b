"""What a frame's PixelCNN is told of the frames and actions before it (section 4.4).

The past comes in as one grid moved by a frame, so that a frame's place holds the frame
before and the action between; from there on each layer may look at its own time too. As
in the PixelCNN no kernel is masked, and no later frame is ever read.

`__call__` computes the maps of a whole clip at once, `next_frame` the same maps one
after the other, each layer from a queue of the frames that it still sees.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import lax
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

        def behind_nothing(x):
            return jnp.pad(x, [(0, 0), (1, 0)] + [(0, 0)] * (x.ndim - 2))

        return self._maps(
            codes[:, :-1], actions, behind_nothing, lambda x, layer: _later(x, 2**layer)
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
          queues: for each layer its input in this frame and the `delay` frames before,
            that of frame t at place t modulo delay + 1; `empty_queues` at first.
          time: t.
          action: what led to this frame, where there are actions; not read for the
            first frame.
          previous: codes of the frame before; not read for the first frame.

        Returns the next queues and the map.
        """
        next_queues = []

        def from_queue(x, layer):
            places = 2**layer + 1
            # Written before it is read: XLA copies a queue that is read first.
            queue = lax.dynamic_update_index_in_dim(
                queues[layer], x[:, 0], time % places, 0
            )
            next_queues.append(queue)
            past = lax.dynamic_index_in_dim(queue, (time + 1) % places, keepdims=False)
            return past[:, None]

        maps = self._maps(
            previous[:, None],
            None if action is None else action[:, None],
            lambda x: jnp.where(time > 0, x, 0),
            from_queue,
        )
        return tuple(next_queues), maps[:, 0]

    def empty_queues(self, *shape: int) -> tuple[Float[Array, "_ B H W F"], ...]:
        """Return the queues before the first frame, of clips and grid `(B, H, W)`."""
        return tuple(
            jnp.zeros((2**layer + 1, *shape, self.units), self.dtype)
            for layer in range(self.layers)
        )

    @nn.compact
    def _maps(
        self,
        codes: Int[Array, "B S H W C"],
        actions: Int[Array, "B S"] | None,
        known: Callable[[Any], Any],
        past: Callable[[Any, int], Any],
    ) -> Float[Array, "B T H W F"]:
        """Return maps from what is before them, in either form.

        `known` gives each frame what comes from the one before it; `past` gives a layer
        its input as it was `delay` frames earlier.
        """
        embed = CodeEmbedding(self.num_codes, self.codes_per_cell, self.units)
        x = known(embed(codes).sum(axis=-2).astype(self.dtype))
        action = None
        if self.num_actions:
            embedded = nn.Embed(self.num_actions, self.units, dtype=self.dtype)(actions)
            action = known(embedded)
            # In the input too, or layers that look far back would miss some actions.
            x = x + action[:, :, None, None, :]
        for layer in range(self.layers):
            x = x + self._layer(x, past(x, layer), action)
        return nn.relu(x)

    def _layer(self, x, past, action) -> Float[Array, "B T H W F"]:
        batch, time, *grid, _ = x.shape
        both = jnp.concatenate([x, past], axis=-1)
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
