import jax
import jax.numpy as jnp
import numpy as np

from vqvae_jax.tasks.speech.mu_law import mu_law_decode, mu_law_encode


def companded(x):
    """The formula of G.711, in float64."""
    return np.sign(x) * np.log(1 + 255 * np.abs(x)) / np.log(256)


def test_encoding_all_16_bit_samples_follows_the_formula():
    x = np.arange(-(2**15), 2**15) / 2**15
    exact = (companded(x) + 1) / 2 * 255
    values = np.asarray(mu_law_encode(jnp.asarray(x, jnp.float32)))
    assert values.dtype == np.int32
    assert values[0] == 0
    assert values[-1] == 255
    assert len(np.unique(values)) == 256
    # At a boundary, float32 can round to either neighbour.
    assert np.abs(values - exact).max() <= 0.5 + 1e-4


def test_round_trip_error_is_at_most_half_a_step():
    x = np.arange(-(2**15), 2**15) / 2**15
    back = mu_law_decode(mu_law_encode(jnp.asarray(x, jnp.float32)))
    assert back.dtype == jnp.float32
    error = np.abs(companded(np.asarray(back, np.float64)) - companded(x))
    assert error.max() <= 1 / 255 + 1e-5
    assert error.max() > 0.99 / 255


def test_decoding_inverts_encoding_and_follows_the_formula():
    values = jnp.arange(256).reshape(16, 16)
    samples = mu_law_decode(values)
    np.testing.assert_array_equal(mu_law_encode(samples), values)
    y = np.arange(256) / 255 * 2 - 1
    expected = np.sign(y) * (256 ** np.abs(y) - 1) / 255
    np.testing.assert_allclose(np.ravel(samples), expected, rtol=1e-5)
    np.testing.assert_array_equal(samples, -samples[::-1, ::-1])


def test_silence_and_clipping():
    x = jnp.array([0.0, 1.0, -1.0, 3.0, -3.0])
    assert mu_law_encode(x).tolist() == [128, 255, 0, 255, 0]


def test_under_jit():
    x = jnp.linspace(-1, 1, 101)
    np.testing.assert_array_equal(jax.jit(mu_law_encode)(x), mu_law_encode(x))


def test_decoding_8_bit_values():
    """Doubling a value must not overflow 8 bits."""
    values = np.arange(256)
    np.testing.assert_array_equal(
        mu_law_decode(jnp.asarray(values, jnp.uint8)),
        mu_law_decode(jnp.asarray(values)),
    )
