"""Checks of array arguments that report one clear error."""

from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from vqvae_jax.runtime.errors import require

AnyArray = Array | np.ndarray


def require_shape(name: str, array: Any, *shape: int | str) -> None:
    """Raise UserError unless an array has `shape`; a named side matches any size."""
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

    Skip the check inside a transform such as jit, where an array has no values yet.
    """
    if isinstance(array, jax.core.Tracer) or array.size == 0:
        return
    # jit would trace the minimum even of a concrete array that it closes over.
    with jax.ensure_compile_time_eval():
        least, most = int(array.min()), int(array.max())
    require(
        low <= least and most < high,
        f"{name} must be in {low} ... {high - 1}, got {least} ... {most}",
    )


def common_size(size: int | None, *arrays: Any) -> int:
    """Return the leading size that all arrays and `size` share; ignore None.

    Raises:
      UserError: the sizes differ, all arguments are None, or the size is below 1.
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
    require(size >= 1, f"the number of samples must be at least 1, got {size}")
    return size
