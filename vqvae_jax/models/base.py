"""What several models have: options, their errors, and how they are trained."""

import math
from typing import Any

import jax
from jaxtyping import PRNGKeyArray

from vqvae_jax.runtime.errors import require

# 65 536 pixels to one.
_MAX_STAGES = 16
# Each layer is traced, compiled and kept in memory by itself.
_MAX_DEPTH = 1000
_DEPTHS = ("layers", "stacks", "residual_blocks", "cell_layers", "context_layers")
# Each place of a kernel is cut out of the input by itself.
_MAX_KERNEL = 255
_KERNELS = ("kernel_size", "context_kernel_size")


class TrainedByGradient:
    """The part of the training loop's protocol of models without a codebook."""

    def trainable(self, params: Any) -> Any:
        """Mark with True the leaves that follow the gradient: all."""
        return jax.tree.map(lambda _: True, params)

    def update(self, params: Any, key: PRNGKeyArray, carry: None, *, axis_name=None):
        """Return the parameters: the gradient does it all."""
        del key, carry, axis_name
        return params


def require_buildable(model: Any) -> None:
    """Raise UserError if a model has more layers than any machine can compile.

    Or kernels that are so large.
    """
    for most, names in ((_MAX_DEPTH, _DEPTHS), (_MAX_KERNEL, _KERNELS)):
        for name in names:
            value = getattr(model, name, 0)
            require(value <= most, f"{name} must be at most {most}, got {value}")


def require_sides(name: str, sides: tuple[int, int, int]) -> None:
    """Raise UserError unless height, width and channels are of something."""
    require(
        min(sides) >= 1 and math.prod(sides) < 2**31,
        f"{name} must be three sizes from 1 on, of fewer than 2^31 values in all, got "
        f"{sides}",
    )


def require_odd(name: str, size: int) -> None:
    """Raise UserError unless a kernel has a middle and more than that."""
    require(size % 2 == 1 and size > 1, f"{name} must be odd and above 1, got {size}")


def require_pixelcnn(name: str, model: Any, params: Any) -> None:
    """Raise UserError unless a PixelCNN's parameters are of a model's sizes."""
    tables = params["params"]["embedding"]["tables"]
    expected = (model.grid[-1], model.num_codes, model.units)
    require(
        tables.shape == expected,
        f"params are for (codes a cell, codes, units) = {tables.shape}, this {name} "
        f"has {expected}",
    )


def require_dtype(dtype: str) -> None:
    """Raise UserError unless networks can compute in `dtype`."""
    require(
        dtype in ("float32", "bfloat16"),
        f"dtype must be one of float32, bfloat16, got {dtype!r}",
    )


def require_halvable(image_shape: tuple[int, int, int], *, stages: int) -> None:
    """Raise UserError unless the sides of an image can be halved `stages` times."""
    height, width, _ = image_shape
    require(
        stages <= _MAX_STAGES, f"stages must be at most {_MAX_STAGES}, got {stages}"
    )
    factor = 2**stages
    require(
        height % factor == 0 and width % factor == 0,
        f"stages={stages} halves the image {stages} times, so its sides must be "
        f"multiples of {factor}, but it is {height}x{width}: change data.image_size or "
        "model.stages",
    )
