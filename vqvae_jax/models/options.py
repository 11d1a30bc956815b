"""Options that several models have, and the one error where they cannot be."""

from vqvae_jax.errors import require


def require_dtype(dtype: str) -> None:
    """Raise UserError unless networks can compute in `dtype`."""
    require(
        dtype in ("float32", "bfloat16"),
        f"dtype must be one of float32, bfloat16, got {dtype!r}",
    )


def require_halvable(image_shape: tuple[int, int, int], *, stages: int) -> None:
    """Raise UserError unless the sides of an image can be halved `stages` times."""
    height, width, _ = image_shape
    factor = 2**stages
    require(
        height % factor == 0 and width % factor == 0,
        f"stages={stages} halves the image {stages} times, so its sides must be "
        f"multiples of {factor}, but it is {height}x{width}: change data.image_size or "
        "model.stages",
    )
