"""Output lengths, padding and receptive field of the speech encoder."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqvae_jax.runtime.errors import UserError
from vqvae_jax.tasks.speech.encoder import SpeechEncoder, strides_of


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
