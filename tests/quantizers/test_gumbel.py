"""The Gumbel-softmax against NumPy: draws, the KL term, straight-through gradients.

Numbers in brackets are rows of the list of known defects in docs/conformance.md.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqvae_jax.quantizers import GumbelSoftmax

KEY = jax.random.key(0)
K, D, TAU = 5, 4, 0.5


@pytest.fixture(scope="module")
def gumbel():
    return GumbelSoftmax(num_codes=K, dim=D, temperature=TAU, kl_weight=0.1)


@pytest.fixture(scope="module")
def state(gumbel):
    bias = jnp.linspace(-1, 1, K)
    return gumbel.init(KEY)._replace(logit_bias=bias)


@pytest.fixture(scope="module")
def z_e():
    return jax.random.normal(jax.random.key(2), (20, D))


@pytest.fixture(scope="module")
def logits(state, z_e):
    """Logits `[20, K]`, in float64."""
    product = np.float64(z_e) @ np.float64(state.logit_weights)
    return product + np.float64(state.logit_bias)


def softmax(x):
    y = np.exp(x - x.max(-1, keepdims=True))
    return y / y.sum(-1, keepdims=True)


def test_without_a_key_the_most_probable_code_is_taken(gumbel, state, z_e, logits):
    """[34] Evaluation draws nothing."""
    out = gumbel.quantize(state, z_e)
    codes = logits.argmax(-1)
    np.testing.assert_array_equal(out.codes[:, 0], codes)
    np.testing.assert_array_equal(out.z_q, np.asarray(state.embeddings)[codes])


def test_with_a_key_codes_are_samples_of_the_softmax(gumbel, state, z_e, logits):
    n = 10_000

    @jax.jit
    def draw(key):
        return gumbel.quantize(state, jnp.repeat(z_e[:3], n, axis=0), key=key)

    out = draw(KEY)
    codes = np.asarray(out.codes).reshape(3, n)
    found = [np.bincount(each, minlength=K) / n for each in codes]
    # Five standard deviations of a frequency.
    np.testing.assert_allclose(found, softmax(logits[:3]), atol=5 * 0.5 / n**0.5)
    rows = np.asarray(state.embeddings)[codes.reshape(-1)]
    np.testing.assert_array_equal(out.z_q, rows)
    assert (draw(jax.random.key(1)).codes != out.codes).any()


@pytest.mark.parametrize("key", [None, KEY])
def test_kl_is_that_to_the_uniform_distribution(key, gumbel, state, z_e, logits):
    """In nats per code; of q(k|x), which neither noise nor temperature changes."""
    out = gumbel.quantize(state, z_e, key=key)
    q = softmax(logits)
    expected = (q * np.log(q * K)).sum(-1)
    np.testing.assert_allclose(out.losses["kl"][:, 0], expected, rtol=1e-5)
    np.testing.assert_allclose(out.loss, 0.1 * expected, rtol=1e-5)


@pytest.mark.parametrize("num_codes", [2, 7, 11])
def test_kl_is_between_0_and_log_k(num_codes, z_e):
    """[29] At equal and nearly equal logits too, where rounding would leave less."""
    gumbel = GumbelSoftmax(num_codes=num_codes, dim=D)
    state = gumbel.init(KEY)
    for scale in (0.0, 1e-4):
        near = state._replace(logit_weights=scale * state.logit_weights)
        kl = gumbel.quantize(near, z_e).losses["kl"]
        assert kl.min() >= 0
        assert kl.max() < 1e-6
    certain = state._replace(logit_bias=1e4 * jnp.eye(num_codes)[0])
    kl = gumbel.quantize(certain, z_e).losses["kl"]
    np.testing.assert_allclose(kl, np.full((20, 1), np.log(num_codes)), rtol=1e-6)


@pytest.mark.parametrize("key", [None, KEY])
def test_gradient_is_straight_through(key, gumbel, state, z_e, logits):
    """The code's row has the slope of z_q, the logits that of the softmax."""
    weights = np.asarray(jax.random.normal(jax.random.key(3), z_e.shape), np.float64)

    def f(state, z_e):
        out = gumbel.quantize(state, z_e, key=key)
        return jnp.sum(weights * out.z_q), out.codes[:, 0]

    gradient = jax.jit(jax.grad(f, (0, 1), has_aux=True))
    (for_state, for_z_e), codes = gradient(state, z_e)
    noise = 0 if key is None else np.float64(jax.random.gumbel(key, logits.shape))
    np.testing.assert_array_equal(codes, (logits + noise).argmax(-1))
    y = softmax((logits + noise) / TAU)
    rows = np.float64(state.embeddings)
    to_rows = np.zeros((K, D))
    np.add.at(to_rows, np.asarray(codes), weights)
    np.testing.assert_allclose(for_state.embeddings, to_rows, rtol=1e-4, atol=1e-5)
    to_y = weights @ rows.T
    to_logits = y * (to_y - (y * to_y).sum(-1, keepdims=True)) / TAU
    expected = {
        "logit_weights": np.float64(z_e).T @ to_logits,
        "logit_bias": to_logits.sum(0),
    }
    for name, value in expected.items():
        found = getattr(for_state, name)
        np.testing.assert_allclose(found, value, rtol=1e-4, atol=1e-5)
    to_z_e = to_logits @ np.float64(state.logit_weights).T
    np.testing.assert_allclose(for_z_e, to_z_e, rtol=1e-4, atol=1e-5)


def test_padding_passes_no_gradient_of_z_q(gumbel, state, z_e):
    """[10] A product with NaN would reach the weights, whatever the loss reads."""
    mask = jnp.arange(20) < 15
    padded = jnp.where(mask[:, None], z_e, jnp.nan)

    def f(state, z_e, mask):
        z_q = gumbel.quantize(state, z_e, mask).z_q
        return jnp.sum(jnp.where(mask[:, None], z_q, 0.0))

    found = jax.grad(f)(state, padded, mask)
    expected = jax.grad(f)(state, z_e[:15], mask[:15])
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_rejects_a_temperature_of_0():
    with pytest.raises(ValueError, match=r"temperature must be > 0, got 0\.0"):
        GumbelSoftmax(temperature=0.0)
