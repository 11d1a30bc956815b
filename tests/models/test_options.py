"""Options that several models have."""

import types

import numpy as np
import pytest

from vqvae_jax.errors import UserError
from vqvae_jax.models.options import (
    require_dtype,
    require_halvable,
    require_pixelcnn,
)


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


def test_parameters_of_another_pixelcnn():
    model = types.SimpleNamespace(grid=(5, 4, 2), num_codes=7, units=8)
    for shape in ((2, 7, 8), (1, 7, 8), (2, 6, 8), (2, 7, 9)):
        params = {"params": {"embedding": {"tables": np.zeros(shape)}}}
        if shape == (2, 7, 8):
            require_pixelcnn("prior", model, params)
            continue
        message = rf"= \({', '.join(map(str, shape))}\), this prior has \(2, 7, 8\)"
        with pytest.raises(UserError, match=message):
            require_pixelcnn("prior", model, params)
