"""Any quantizer as a Flax NNX module."""

from typing import Any

import jax
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from vqvae_jax.quantizers import base


class QuantizerState(nnx.Variable):
    """An array of a quantizer's state that does not follow the gradient."""


class Quantizer(nnx.Module):
    """A module that holds the state of a quantizer.

    Calls with `train=True` also call the quantizer's `update` and store the leaves that
    the gradient does not move. A dead code whose row is an `nnx.Param` does not restart
    this way, because the row belongs to the optimizer, but its count does: keep
    `dead_code_threshold` at 0, or call the quantizer's `update` after the optimizer's
    step instead, and write all variables.

    Attributes:
      quantizer: any member of `vqvae_jax.quantizers`.
      state: the quantizer's state. The leaves that follow the gradient
        (`Quantizer.trainable`) are `nnx.Param`, the others `QuantizerState`.
      rngs: the stream of keys of `quantize` and `update` in training.
    """

    def __init__(
        self,
        quantizer: base.Quantizer,
        z_e: Float[Array, "*batch F"] | None = None,
        mask: Bool[Array, "*batch"] | None = None,
        *,
        rngs: nnx.Rngs,
    ):
        """Initialize the state.

        Args:
          quantizer: any member of `vqvae_jax.quantizers`.
          z_e: `[..., F]`, where the quantizer's `init` reads data.
          mask: `[...]`, False at padding.
          rngs: the stream "params" for `init`, and "quantizer" for training; both
            default to the default stream.
        """
        self.quantizer = quantizer
        state = quantizer.init(rngs.params(), z_e, mask)
        self.state = nnx.data(
            jax.tree.map(
                lambda leaf, is_trainable: (
                    nnx.Param(leaf) if is_trainable else QuantizerState(leaf)
                ),
                state,
                quantizer.trainable(state),
            )
        )
        self.rngs = rngs["quantizer"].fork()

    def __call__(
        self,
        z_e: Float[Array, "*batch F"],
        mask: Bool[Array, "*batch"] | None = None,
        *,
        train: bool = False,
        axis_name: base.AxisName = None,
    ) -> base.Quantized:
        """Quantize vectors; in training, update the `QuantizerState` too.

        Args:
          z_e: `[..., F]`.
          mask: `[...]`, False at padding.
          train: whether to draw and to update.
          axis_name: the mapped axes that the update sums its statistics over, as in
            the quantizer's `update`.
        """
        state = self._values()
        if not train:
            return self.quantizer.quantize(state, z_e, mask)
        out = self.quantizer.quantize(state, z_e, mask, key=self.rngs())
        shared = {"mask": mask, "axis_name": axis_name}
        state = self.quantizer.update(state, z_e, out.codes, key=self.rngs(), **shared)
        variables = jax.tree.leaves(self.state, is_leaf=_is_variable)
        for variable, value in zip(variables, jax.tree.leaves(state), strict=True):
            if isinstance(variable, QuantizerState):
                variable[...] = jax.lax.stop_gradient(value)
        return out

    def lookup(self, codes: Int[Array, "*batch C"]) -> Float[Array, "*batch F"]:
        """Return the vectors of codes."""
        return self.quantizer.lookup(self._values(), codes)

    def _values(self) -> base.State:
        return jax.tree.map(
            lambda variable: variable[...], self.state, is_leaf=_is_variable
        )


def _is_variable(x: Any) -> bool:
    return isinstance(x, nnx.Variable)
