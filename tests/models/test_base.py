"""Options that several models have."""

import types

import numpy as np
import pytest

from vqvae_jax.models.base import (
    require_buildable,
    require_dtype,
    require_halvable,
    require_pixelcnn,
    require_sides,
)
from vqvae_jax.runtime.errors import UserError


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


def test_models_that_no_machine_can_compile():
    require_buildable(types.SimpleNamespace(layers=1000, kernel_size=255))
    for name, most in (("layers", 1000), ("context_kernel_size", 255)):
        model = types.SimpleNamespace(**{name: most + 2})
        message = rf"^{name} must be at most {most}, got {most + 2}$"
        with pytest.raises(UserError, match=message):
            require_buildable(model)


@pytest.mark.parametrize("sides", [(0, 8, 3), (8, 8, -1), (2**20, 2**10, 2)])
def test_sides_that_cannot_be(sides):
    require_sides("grid", (2**20, 2**10, 1))
    with pytest.raises(UserError, match=r"^grid must be three sizes .*, got \("):
        require_sides("grid", sides)


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
