"""Checks of array arguments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqvae_jax.runtime.arrays import require_range, require_shape
from vqvae_jax.runtime.errors import UserError


def test_require_shape():
    require_shape("codes", np.zeros((5, 2, 3)), "B", 2, 3)
    require_shape("codes", np.zeros((0, 2, 3)), 0, "H", 3)
    for shape in ((5, 3, 2), (5, 2), (5, 2, 3, 1)):
        with pytest.raises(UserError, match=r"codes must have shape \[B, 2, 3\], got"):
            require_shape("codes", np.zeros(shape), "B", 2, 3)


def test_require_range():
    require_range("labels", np.array([0, 9]), 0, 10)
    require_range("labels", jnp.zeros(0, int), 0, 10)
    for bad in (-1, 10):
        with pytest.raises(UserError, match=rf"labels must be in 0 ... 9, got .*{bad}"):
            require_range("labels", jnp.array([3, bad, 4]), 0, 10)


def test_range_is_not_checked_under_a_transform():
    def double(x):
        require_range("x", x, 0, 10)
        return 2 * x

    assert jax.jit(double)(jnp.array([11])) == 22
    assert jax.vmap(double)(jnp.array([11])) == 22


def test_range_is_checked_for_arrays_that_jit_closes_over():
    inside = jnp.array([9])
    outside = jnp.array([11])

    def checked(x, array):
        require_range("x", array, 0, 10)
        return x

    assert jax.jit(lambda x: checked(x, inside))(1) == 1
    with pytest.raises(UserError, match="x must be in"):
        jax.jit(lambda x: checked(x, outside))(1)
