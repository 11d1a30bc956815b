"""The networks of speech: encoder, jitter, mu-law values and audio."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqvae_jax.runtime.errors import UserError
from vqvae_jax.tasks.speech.networks import (
    SpeechEncoder,
    audio_of,
    companded,
    jitter,
    mu_law_decode,
    mu_law_encode,
    roll_by_half,
    strides_of,
    values_of,
)


@pytest.mark.parametrize(
    ("downsampling", "strides"),
    [
        (64, (2,) * 6),
        (128, (2,) * 7),
        (640, (5, *(2,) * 7)),
        (320, (5, *(2,) * 6)),
        (1, ()),
    ],
)
def test_factors(downsampling, strides):
    assert strides_of(downsampling) == strides


@pytest.mark.parametrize("downsampling", [0, 14])
def test_unsupported_prime_factors_raise(downsampling):
    with pytest.raises(UserError, match=f"downsampling must .* got {downsampling}"):
        strides_of(downsampling)


@pytest.fixture(scope="module", params=[8, 20])
def encoder(request):
    network = SpeechEncoder(
        3, downsampling=request.param, channels=4, residual_blocks=1
    )
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 100)))
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda x: jnp.asarray(0.5 * rng.normal(size=x.shape), jnp.float32), shapes
    )
    return network, params, jax.jit(network.apply)


def wave(length):
    rng = np.random.default_rng(length)
    return jnp.asarray(rng.uniform(-1, 1, size=(1, length)), jnp.float32)


@pytest.mark.parametrize("length", [1, 40, 41, 59, 60])
def test_length_is_divided_by_downsampling_and_rounded_up(encoder, length):
    network, params, apply = encoder
    z_e = apply(params, wave(length))
    assert z_e.shape == (1, -(-length // network.downsampling), 3)
    assert z_e.dtype == jnp.float32


@pytest.mark.parametrize("length", [1, 41, 59, 60])
def test_padding_does_not_change_z_e(encoder, length):
    """[10] For any values of the padding, including NaN."""
    _, params, apply = encoder
    alone = apply(params, wave(length))
    padded = jnp.full((1, 87), jnp.nan).at[:, :length].set(wave(length))
    mask = (jnp.arange(87) < length)[None]
    z_e = apply(params, padded, mask)
    count = alone.shape[1]
    np.testing.assert_allclose(z_e[:, :count], alone, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(z_e[:, count:], 0)


def test_receptive_field_covers_the_block_and_its_neighbours(encoder):
    network, params, _ = encoder
    hop, weights = network.downsampling, jnp.asarray([1.0, -0.7, 0.3])
    slope = jax.jit(
        jax.grad(lambda x: (network.apply(params, x)[0, 10] @ weights).sum())
    )(wave(20 * hop))[0]
    reached = np.flatnonzero(np.asarray(slope))
    assert reached.min() > 6 * hop
    assert reached.max() < 15 * hop
    # ReLU hides some samples of the block, never all.
    assert np.isin(np.arange(10 * hop, 11 * hop), reached).mean() > 0.5


def numbered(batch, length):
    """Sequences in which each vector is its position."""
    positions = jnp.arange(length, dtype=jnp.float32)[None, :, None]
    return jnp.broadcast_to(positions, (batch, length, 1))


def test_jitter_copies_neighbours_at_the_given_rate():
    mask = jnp.ones((500, 10), bool)
    moved = jax.jit(jitter, static_argnames="rate")(
        jax.random.key(0), numbered(500, 10), mask, rate=0.3
    )
    step = np.asarray(moved)[..., 0] - np.arange(10)
    assert set(np.unique(step)) == {-1, 0, 1}
    inside = step[:, 1:-1]
    for side in (-1, 1):
        assert np.mean(inside == side) == pytest.approx(0.15, abs=0.02)
    # The ends have one neighbour.
    assert np.mean(step[:, 0] == 1) == pytest.approx(0.15, abs=0.05)
    assert np.mean(step[:, -1] == -1) == pytest.approx(0.15, abs=0.05)


def test_jitter_never_copies_padding():
    """[10] The last code before the padding is kept or replaced by the previous one."""
    mask = jnp.arange(6)[None] < 4
    mask = jnp.broadcast_to(mask, (400, 6))
    moved = jax.jit(jitter, static_argnames="rate")(
        jax.random.key(1), numbered(400, 6), mask, rate=0.9
    )
    assert set(np.unique(np.asarray(moved)[:, 3, 0])) == {2, 3}


def test_zero_rate_returns_the_input():
    z_q = numbered(2, 5)
    assert jitter(jax.random.key(0), z_q, jnp.ones((2, 5), bool), rate=0.0) is z_q


def test_roll_by_half_uses_the_length_of_each_sequence():
    mask = jnp.asarray([[True] * 5 + [False], [True] * 6, [True] + [False] * 5])
    found = jax.jit(roll_by_half)(numbered(3, 6), mask)[..., 0]
    np.testing.assert_array_equal(
        found, [[2, 3, 4, 0, 1, 5], [3, 4, 5, 0, 1, 2], [0, 1, 2, 3, 4, 5]]
    )


def g711(x):
    """The formula of G.711, in float64."""
    return np.sign(x) * np.log(1 + 255 * np.abs(x)) / np.log(256)


def test_encoding_all_16_bit_samples_follows_the_formula():
    x = np.arange(-(2**15), 2**15) / 2**15
    exact = (g711(x) + 1) / 2 * 255
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
    error = np.abs(g711(np.asarray(back, np.float64)) - g711(x))
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


def test_round_trip_error_is_half_a_companded_step():
    audio = np.arange(-32768, 32768, dtype=np.int16)[None]

    values = jax.jit(values_of)(audio)
    back = jax.jit(audio_of)(values)
    assert values.min() == 0
    assert values.max() == 255
    assert back.dtype == jnp.int16
    error = np.abs(g711(np.float64(back) / 2**15) - g711(np.float64(audio) / 2**15))
    # Half a step, and the error of rounding to 16 bits, relevant near silence.
    assert error.max() < 1 / 255 + 0.005
    assert error[np.abs(audio) > 2000].max() < 1.01 / 255


def test_companded_values_fill_their_range():
    found = companded(jnp.asarray([[0, 255]]))
    np.testing.assert_allclose(found, [[-1, 1]])


def test_audio_of_another_dtype_raises():
    with pytest.raises(UserError, match=r"^audio must be int16, got float32"):
        values_of(np.zeros((1, 4), np.float32))
