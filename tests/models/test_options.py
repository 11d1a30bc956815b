"""Options that several models have."""

import pytest

from vqvae_jax.errors import UserError
from vqvae_jax.models.options import require_dtype, require_halvable


def test_dtypes():
    require_dtype("float32")
    require_dtype("bfloat16")
    with pytest.raises(UserError, match=r"^dtype must be .* got 'float16'"):
        require_dtype("float16")


def test_sides_that_can_be_halved():
    require_halvable((8, 24, 3), stages=3)
    require_halvable((7, 5, 1), stages=0)
    for shape in ((8, 20, 3), (20, 8, 3)):
        with pytest.raises(UserError, match=r"^stages=3 .* multiples of 8, but it is"):
            require_halvable(shape, stages=3)
