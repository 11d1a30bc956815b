"""Any quantizer as a Flax Linen module."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from vqvae_jax.quantizers import base


class Quantizer(nn.Module):
    """A module whose variables are the state of a quantizer.

    The leaves that follow the gradient (`Quantizer.trainable`) are in the collection
    "params", the others in the collection "quantizer", each under its name in the
    state: "embeddings", "counts". `init` draws them with the rng "params", from z_e
    where the quantizer reads data.

    A training step is `apply` with `train=True` and `mutable=["quantizer"]`. It calls
    the quantizer's `update` and stores the leaves that the gradient does not move. A
    dead code whose row is in "params" does not restart this way, because the row
    belongs to the optimizer, but its count does: keep `dead_code_threshold` at 0, or
    call the quantizer's `update` after the optimizer's step instead, and write both
    collections.

    The rng "quantizer" is optional. Without it `quantize` draws nothing, and dead codes
    restart from vectors at the same positions of each batch.

    Attributes:
      quantizer: any member of `vqvae_jax.quantizers`.
    """

    quantizer: base.Quantizer

    @nn.compact
    def __call__(
        self,
        z_e: Float[Array, "*batch F"],
        mask: Bool[Array, "*batch"] | None = None,
        *,
        train: bool = False,
        axis_name: base.AxisName = None,
    ) -> base.Quantized:
        """Quantize vectors; in training, update the collection "quantizer" too.

        Args:
          z_e: `[..., F]`.
          mask: `[...]`, False at padding.
          train: whether to draw, and to update the collection where it is mutable.
          axis_name: the mapped axes that the update sums its statistics over, as in
            the quantizer's `update`.
        """
        layout = _layout(self.quantizer)
        if self.is_initializing():
            state = self.quantizer.init(self.make_rng("params"), z_e, mask)
            leaves = jax.tree.leaves(state)
        else:
            # Flax compares their shapes with those of the variables.
            leaves = [jnp.zeros(leaf.shape, leaf.dtype) for leaf in layout.leaves]
        values, variables = [], {}
        for i, name in enumerate(layout.names):
            if layout.is_trainable[i]:
                values.append(self.param(name, lambda _, i=i: leaves[i]))
                continue
            initial = (lambda i=i: leaves[i]) if self.is_initializing() else None
            variables[i] = self.variable("quantizer", name, initial)
            values.append(variables[i].value)
        state = jax.tree.unflatten(layout.structure, values)
        has_key = train and self.has_rng("quantizer")
        key = self.make_rng("quantizer") if has_key else None
        out = self.quantizer.quantize(state, z_e, mask, key=key)
        is_mutable = self.is_mutable_collection("quantizer")
        if train and is_mutable and not self.is_initializing():
            key = self.make_rng("quantizer") if has_key else jax.random.key(0)
            shared = {"mask": mask, "axis_name": axis_name}
            state = self.quantizer.update(state, z_e, out.codes, key=key, **shared)
            updated = jax.tree.leaves(state)
            for i, variable in variables.items():
                variable.value = jax.lax.stop_gradient(updated[i])
        return out

    def lookup(self, codes: Int[Array, "*batch C"]) -> Float[Array, "*batch F"]:
        """Return the vectors of codes.

        Raises:
          ValueError: the module has no variables yet.
        """
        layout = _layout(self.quantizer)
        values = [
            self.get_variable("params" if is_trainable else "quantizer", name)
            for name, is_trainable in zip(
                layout.names, layout.is_trainable, strict=True
            )
        ]
        if any(value is None for value in values):
            raise ValueError("lookup needs variables: initialize with __call__")
        return self.quantizer.lookup(
            jax.tree.unflatten(layout.structure, values), codes
        )


class _Layout(NamedTuple):
    """The leaves of a quantizer's state, in order.

    structure: of the state.
    names: paths in the state, such as "embeddings".
    leaves: shapes and dtypes.
    is_trainable: whether each leaf follows the gradient.
    """

    structure: jax.tree_util.PyTreeDef
    names: tuple[str, ...]
    leaves: tuple[jax.ShapeDtypeStruct, ...]
    is_trainable: tuple[bool, ...]


@functools.cache
def _layout(quantizer: base.Quantizer) -> _Layout:
    key = jax.eval_shape(lambda: jax.random.key(0))
    z_e = jax.ShapeDtypeStruct((1, quantizer.features), "float32")
    state = jax.eval_shape(quantizer.init, key, z_e)
    leaves, structure = jax.tree_util.tree_flatten_with_path(state)
    keystr = functools.partial(jax.tree_util.keystr, simple=True, separator=".")
    return _Layout(
        structure,
        names=tuple(keystr(path) for path, _ in leaves),
        leaves=tuple(jax.ShapeDtypeStruct(x.shape, x.dtype) for _, x in leaves),
        is_trainable=tuple(jax.tree.leaves(quantizer.trainable(state))),
    )
