"""The encoder, the decoder and their residual blocks, against formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqvae_jax.networks.autoencoder import Decoder, Encoder, ResidualBlock

SMALL = {"channels": 8, "residual_channels": 4}


def _num_parameters(module, *shape):
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros(shape))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def _conv(side, c_in, c_out):
    return side * side * c_in * c_out + c_out


def test_parameter_counts_of_the_papers_cifar_model():
    """Counted by hand: no layer is missing and none is shared."""
    block = _conv(3, 256, 256) + _conv(1, 256, 256)
    encoder = _conv(4, 3, 256) + _conv(4, 256, 256) + 2 * block + _conv(1, 256, 640)
    decoder = _conv(3, 640, 256) + 2 * block + _conv(4, 256, 256) + _conv(4, 256, 3)
    assert (encoder, decoder) == (2_537_600, 3_847_683)
    assert _num_parameters(Encoder(out_features=640), 1, 32, 32, 3) == encoder
    assert _num_parameters(Decoder(out_channels=3), 1, 8, 8, 640) == decoder


def test_parameter_counts_follow_the_options():
    options = {**SMALL, "num_downsamples": 3, "residual_blocks": 1}
    block = _conv(3, 8, 4) + _conv(1, 4, 8)
    encoder = _conv(4, 3, 8) + 2 * _conv(4, 8, 8) + block + _conv(1, 8, 5)
    decoder = _conv(3, 5, 8) + block + 2 * _conv(4, 8, 8) + _conv(4, 8, 6)
    assert _num_parameters(Encoder(out_features=5, **options), 1, 8, 8, 3) == encoder
    assert _num_parameters(Decoder(out_channels=6, **options), 1, 1, 1, 5) == decoder


@pytest.mark.parametrize("halvings", [0, 1, 2, 3])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_shapes_and_dtypes(halvings, dtype):
    options = {**SMALL, "num_downsamples": halvings, "dtype": dtype}
    encoder = Encoder(out_features=6, **options)
    decoder = Decoder(out_channels=5, **options)
    key, images = jax.random.key(0), jnp.zeros((2, 16, 24, 3))
    z_e, params = jax.eval_shape(encoder.init_with_output, key, images)
    y, _ = jax.eval_shape(decoder.init_with_output, key, z_e)
    assert z_e.shape == (2, 16 >> halvings, 24 >> halvings, 6)
    assert y.shape == (2, 16, 24, 5)
    assert {z_e.dtype, y.dtype} == {jnp.dtype(jnp.float32)}
    assert {p.dtype for p in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}


def test_odd_sides_are_rounded_up():
    encoder = Encoder(out_features=6, **SMALL)
    images = jax.ShapeDtypeStruct((1, 21, 10, 3), jnp.float32)
    init = encoder.init_with_output
    z_e, _ = jax.eval_shape(init, jax.random.key(0), images)
    assert z_e.shape == (1, 6, 3, 6)


def _params_with_zero_last_convolution(block, x):
    params = jax.jit(block.init)(jax.random.key(0), x)["params"]
    params["conv1x1"] = jax.tree.map(jnp.zeros_like, params["conv1x1"])
    return params


def test_residual_block_with_a_zero_last_convolution_is_the_identity():
    x = jax.random.normal(jax.random.key(1), (2, 5, 4, 6))
    block = ResidualBlock(6, 3)
    params = _params_with_zero_last_convolution(block, x)
    assert set(params) == {"conv3x3", "conv1x1"}
    np.testing.assert_array_equal(block.apply({"params": params}, x), x)


def test_residual_block_that_changes_channels_projects_its_skip():
    x = jax.random.normal(jax.random.key(1), (2, 5, 4, 6))
    block = ResidualBlock(9, 3)
    params = _params_with_zero_last_convolution(block, x)
    expected = np.einsum("bhwc,cd->bhwd", x, params["skip"]["kernel"][0, 0])
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(
        block.apply({"params": params}, x), expected, atol=1e-5, rtol=1e-5
    )


def test_residual_block_equals_its_formula():
    x = jax.random.normal(jax.random.key(1), (1, 3, 3, 2))
    block = ResidualBlock(2, 3)
    params = jax.jit(block.init)(jax.random.key(0), x)["params"]
    relu = np.maximum(np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), 0)
    hidden = np.zeros((1, 3, 3, 3))
    first, second = (np.asarray(params[n]["kernel"]) for n in ("conv3x3", "conv1x1"))
    for i in range(3):
        for j in range(3):
            patch = relu[0, i : i + 3, j : j + 3]
            hidden[0, i, j] = np.einsum("uvc,uvcd->d", patch, first)
    expected = x + np.maximum(hidden, 0) @ second[0, 0]
    np.testing.assert_allclose(block.apply({"params": params}, x), expected, atol=1e-5)
