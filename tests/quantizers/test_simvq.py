"""SimVQ against NumPy: rows, losses and the gradient of W.

Numbers in brackets are rows of the list of known defects in docs/conformance.md.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqvae_jax.quantizers import SimVQ

KEY = jax.random.key(0)
K, D = 9, 4


@pytest.fixture(scope="module")
def simvq():
    return SimVQ(num_codes=K, dim=D, beta=0.5)


@pytest.fixture(scope="module")
def state(simvq):
    """Normal factors."""
    weights = jax.random.normal(jax.random.key(1), (D, D))
    return simvq.init(KEY)._replace(weights=weights)


@pytest.fixture(scope="module")
def z_e():
    return jax.random.normal(jax.random.key(2), (20, D))


@pytest.fixture(scope="module")
def oracle(state, z_e):
    """Codes `[20]` and rows `[20, D]`, in float64."""
    table = np.float64(state.base) @ np.float64(state.weights)
    codes = ((np.float64(z_e)[:, None] - table) ** 2).sum(-1).argmin(-1)
    return codes, table[codes]


def test_rows_start_as_drawn(simvq):
    """Normal, of variance 1 / D."""
    state = SimVQ(num_codes=1000, dim=D).init(KEY)
    np.testing.assert_array_equal(state.weights, np.eye(D))
    np.testing.assert_array_equal(
        SimVQ(num_codes=1000, dim=D).codebooks(state)[0], state.base
    )
    # Four standard deviations of a variance of 4000 numbers.
    relative = float(np.var(state.base)) * D
    assert relative == pytest.approx(1, abs=4 * (2 / 4000) ** 0.5)


def test_codes_rows_and_losses_equal_numpy(simvq, state, z_e, oracle):
    out = simvq.quantize(state, z_e)
    codes, rows = oracle
    np.testing.assert_array_equal(out.codes[:, 0], codes)
    np.testing.assert_allclose(out.z_q, rows, rtol=1e-5, atol=1e-6)
    squares = ((z_e - rows) ** 2).mean(-1)
    np.testing.assert_allclose(out.losses["codebook"][:, 0], squares, rtol=1e-4)
    np.testing.assert_allclose(out.losses["commitment"][:, 0], squares, rtol=1e-4)
    np.testing.assert_allclose(out.loss, 1.5 * squares, rtol=1e-4)


@pytest.mark.parametrize("number", [1, 7, 20])
def test_lookup_equals_z_q_to_the_last_bit(number, simvq, state, z_e):
    """[26] A product of the rows that are read alone would round differently."""
    for methods in (
        (simvq.quantize, simvq.lookup),
        (
            jax.jit(simvq.quantize),
            jax.jit(simvq.lookup),
        ),
    ):
        out = methods[0](state, z_e[:number])
        np.testing.assert_array_equal(methods[1](state, out.codes), out.z_q)


def test_each_loss_has_the_gradient_of_its_owner(simvq, state, z_e, oracle):
    """[31, 33] The codebook loss reaches W, not the base; commitment reaches z_e."""

    def total(state, z_e, name):
        return simvq.quantize(state, z_e).losses[name].sum()

    codes, rows = oracle
    slopes = 2 * (rows - np.float64(z_e)) / D
    for_state, for_z_e = jax.grad(total, (0, 1))(state, z_e, "codebook")
    expected = np.float64(state.base)[codes].T @ slopes
    np.testing.assert_allclose(for_state.weights, expected, rtol=1e-4, atol=1e-5)
    assert not for_state.base.any()
    assert not for_z_e.any()
    for_state, for_z_e = jax.grad(total, (0, 1))(state, z_e, "commitment")
    assert not for_state.base.any()
    assert not for_state.weights.any()
    np.testing.assert_allclose(for_z_e, -slopes, rtol=1e-4, atol=1e-5)


def test_a_step_moves_unused_rows(simvq, state):
    """Which a codebook of independent rows cannot do."""
    z_e = jnp.ones((1, D))

    def loss(state):
        return simvq.quantize(state, z_e).loss.sum()

    weights = state.weights - 0.1 * jax.grad(loss)(state).weights
    moved = simvq.codebooks(state._replace(weights=weights)) != simvq.codebooks(state)
    assert moved[0].any(-1).all()
