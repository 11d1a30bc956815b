"""BEST-RQ's quantizer against NumPy: codes, the vectors of codes, frozen arrays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqvae_jax.quantizers import RandomProjection

KEY = jax.random.key(0)
K, F, D = 50, 12, 5


@pytest.fixture(scope="module")
def quantizer():
    return RandomProjection(num_codes=K, dim=F, code_dim=D)


@pytest.fixture(scope="module")
def state(quantizer):
    return quantizer.init(KEY)


@pytest.fixture(scope="module")
def z_e():
    return jax.random.normal(jax.random.key(1), (40, F))


def test_rows_have_norm_1_and_columns_are_orthonormal(state):
    norms = np.linalg.norm(state.codebook, axis=-1)
    np.testing.assert_allclose(norms, np.ones(K), rtol=1e-6)
    products = np.float64(state.projection).T @ np.float64(state.projection)
    np.testing.assert_allclose(products, np.eye(D), atol=1e-6)


def test_codes_are_those_of_equation_1(quantizer, state, z_e):
    projected = np.float64(z_e) @ np.float64(state.projection)
    projected /= np.linalg.norm(projected, axis=-1, keepdims=True)
    distances = np.linalg.norm(projected[:, None] - np.float64(state.codebook), axis=-1)
    codes = quantizer.quantize(state, z_e).codes[:, 0]
    np.testing.assert_array_equal(codes, distances.argmin(-1))
    assert len(np.unique(codes)) > 10


@pytest.mark.parametrize("scale", [1e-8, 1e8])
def test_codes_depend_on_the_direction_alone(scale, quantizer, state, z_e):
    codes = quantizer.quantize(state, z_e).codes
    np.testing.assert_array_equal(quantizer.quantize(state, scale * z_e).codes, codes)


def test_z_q_is_the_shortest_vector_with_the_projection_of_its_row(
    quantizer, state, z_e
):
    """So it has the same code again."""
    out = quantizer.quantize(state, z_e)
    inverse = np.linalg.pinv(np.float64(state.projection))
    rows = np.float64(state.codebook)[np.asarray(out.codes[:, 0])]
    np.testing.assert_allclose(out.z_q, rows @ inverse, atol=1e-6)
    np.testing.assert_array_equal(quantizer.quantize(state, out.z_q).codes, out.codes)


def test_nothing_is_trainable_and_there_is_no_loss(quantizer, state, z_e):
    assert not any(quantizer.trainable(state))

    def f(state):
        out = quantizer.quantize(state, z_e)
        assert not out.losses
        return out.loss.sum() + out.z_q.sum() + quantizer.lookup(state, out.codes).sum()

    assert not any(x.any() for x in jax.grad(f)(state))
    np.testing.assert_array_equal(quantizer.quantize(state, z_e).loss, jnp.zeros(40))


def test_rejects_a_projection_to_more_dimensions():
    with pytest.raises(ValueError, match="code_dim must be at most dim = 4, got 5"):
        RandomProjection(dim=4, code_dim=5)
