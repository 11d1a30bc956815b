"""The mesh axes that an array varies over inside shard_map."""

from typing import TypeVar

import jax
from jax import lax

T = TypeVar("T")


def vary_like(tree: T, other: jax.Array) -> T:
    """Cast arrays to vary over every axis that `other` varies over.

    Values do not change. With `check_vma`, shard_map sums the gradient with respect to
    a replicated array over the devices; the gradient with respect to the result of this
    cast is each device's own. Outside of shard_map this does nothing.
    """
    wanted = _varying_axes(other)

    def cast(x):
        axes = wanted - _varying_axes(x)
        return lax.pcast(x, tuple(sorted(axes)), to="varying") if axes else x

    return jax.tree.map(cast, tree)


def _varying_axes(x: jax.Array) -> frozenset[str]:
    kind = jax.typeof(x)
    # The attribute has had both names in JAX.
    manual = getattr(kind, "mat", None)
    return getattr(manual, "varying", getattr(kind, "vma", frozenset()))
