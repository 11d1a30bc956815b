"""What shard_map knows of arrays: over which devices they vary."""

from typing import TypeVar

import jax
from jax import lax

T = TypeVar("T")


def vary_like(tree: T, other: jax.Array) -> T:
    """Let arrays vary over all devices that another one varies over.

    The values stay. Where shard_map checks what varies (`check_vma`), the gradient by
    an array that is the same on all devices is summed over them, as that of this cast
    is; the gradient by its result is each device's own. Elsewhere nothing is done.
    """
    wanted = _varying_axes(other)

    def cast(x):
        axes = wanted - _varying_axes(x)
        return lax.pcast(x, tuple(sorted(axes)), to="varying") if axes else x

    return jax.tree.map(cast, tree)


def _varying_axes(x: jax.Array) -> frozenset[str]:
    kind = jax.typeof(x)
    # JAX has had this under both names.
    manual = getattr(kind, "mat", None)
    return getattr(manual, "varying", getattr(kind, "vma", frozenset()))
