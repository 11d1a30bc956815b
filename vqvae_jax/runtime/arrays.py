"""Arrays that callers pass: one clear error where they are not what they must be."""

from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from vqvae_jax.runtime.errors import require

AnyArray = Array | np.ndarray


def require_shape(name: str, array: Any, *shape: int | str) -> None:
    """Raise UserError unless an array has a shape; a side that is a name may be any."""
    require(
        len(array.shape) == len(shape)
        and all(
            isinstance(side, str) or side == size
            for side, size in zip(shape, array.shape, strict=True)
        ),
        f"{name} must have shape [{', '.join(map(str, shape))}], got {array.shape}",
    )


def require_range(name: str, array: Any, low: int, high: int) -> None:
    """Raise UserError unless low <= array < high.

    Under a transform, as inside jit, an array has no values yet: nothing is checked.
    """
    if isinstance(array, jax.core.Tracer) or array.size == 0:
        return
    # An array that jit only closes over has values, whose least jit would still trace.
    with jax.ensure_compile_time_eval():
        least, most = int(array.min()), int(array.max())
    require(
        low <= least and most < high,
        f"{name} must be in {low} ... {high - 1}, got {least} ... {most}",
    )


def common_size(size: int | None, *arrays: Any) -> int:
    """Return the leading size that all arrays and `size` share; None says nothing.

    Raises:
      UserError: they differ, or there are none.
    """
    sizes = {array.shape[0] for array in arrays if array is not None}
    if size is not None:
        sizes.add(size)
    require(bool(sizes), "labels or num_samples must be given")
    require(
        len(sizes) == 1,
        f"num_samples and the arrays must be of one size, got {sorted(sizes)}",
    )
    size = sizes.pop()
    require(size >= 1, f"at least one must be wanted, got {size}")
    return size
