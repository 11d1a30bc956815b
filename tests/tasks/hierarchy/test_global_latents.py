"""Codes to latents and back: networks, probabilities, and draws that follow them."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import changed

from vqvae_jax.models.prior import Prior
from vqvae_jax.networks.pixelcnn import PixelCNN
from vqvae_jax.quantizers import VQ
from vqvae_jax.runtime.errors import UserError
from vqvae_jax.tasks.hierarchy.global_latents import GlobalDecoder, GlobalEncoder
from vqvae_jax.tasks.hierarchy.model import Hierarchy

SMALL = {"channels": 8, "num_downsamples": 0, "residual_blocks": 0}
NETWORKS = {
    "encoder": GlobalEncoder(**SMALL),
    "to_map": GlobalDecoder(out_channels=5, **SMALL),
    "pixelcnn": PixelCNN(layers=2, channels=8, kernel_size=3),
}
MODEL = Hierarchy(grid=(4, 5, 1), num_codes=7, **NETWORKS)


@pytest.fixture(scope="module")
def trained():
    """A model of 1x2 cells of 3 codes, with random rows in its codebooks."""
    quantizer = VQ(num_codebooks=2, num_codes=4, dim=3, codebook_init="uniform")
    model = Hierarchy(grid=(1, 2, 1), num_codes=3, quantizer=quantizer, **NETWORKS)
    batch = {"codes": jnp.zeros((8, 1, 2, 1), int), "mask": jnp.ones(8, bool)}
    params = jax.jit(model.init)(jax.random.key(0), batch)
    rows = np.random.default_rng(0).normal(0, 10, (2, 4, 3)).astype(np.float32)
    state = params.quantizer._replace(embeddings=jnp.asarray(rows))
    params = params._replace(quantizer=state)
    every = np.array(list(itertools.product(range(3), repeat=2)))
    return model, params, every.reshape(9, 1, 2, 1)


def test_probabilities_sum_to_one_and_depend_on_the_latents(trained):
    model, params, every = trained
    latents = np.repeat(np.array([[0, 1], [3, 2]]), 9, axis=0)
    twice = np.concatenate([every, every])
    p = np.exp(jax.jit(model.log_prob)(params, twice, latents)).reshape(2, 9)
    np.testing.assert_allclose(np.sum(p, axis=1), 1, rtol=1e-5)
    assert np.abs(p[0] - p[1]).max() > 0.02


def test_draws_follow_the_probabilities(trained):
    model, params, every = trained
    latents = np.tile(np.array([[1, 3]]), (6000, 1))
    p = np.exp(jax.jit(model.log_prob)(params, every, latents[:9]))
    codes = model.decode(params, jax.random.key(2), latents)
    drawn = np.bincount(np.asarray(codes).reshape(-1, 2) @ [3, 1], minlength=9) / 6000
    # Four standard errors.
    assert np.all(np.abs(drawn - p) < 4 * np.sqrt(p * (1 - p) / 6000))


def test_without_latents_it_is_the_same_pixelcnn():
    model = changed(MODEL, {"pixelcnn.dropout": 0.3})
    network = PixelCNN(layers=2, channels=8, kernel_size=3, dropout=0.3)
    expected = Prior(grid=(4, 5, 1), num_codes=7, network=network)
    assert model.without_latents == expected
    assert model.codes_per_frame == 20


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("quantizer.num_codebooks", 0, "must be >= 1, got 0"),
        ("to_map.out_channels", 0, "must be >= 1, got 0"),
        ("encoder.residual_blocks", -1, "must be >= 0 and <= 1000, got -1"),
        ("to_map.residual_blocks", -1, "must be >= 0 and <= 1000, got -1"),
        ("pixelcnn.kernel_size", 4, "must be odd and > 1 and <= 255, got 4"),
        ("encoder.dtype", "float16", "must be one of float32, bfloat16"),
        ("to_map.dtype", "float16", "must be one of float32, bfloat16"),
        ("pixelcnn.dtype", "float16", "must be one of float32, bfloat16"),
    ],
)
def test_invalid_options_raise(name, value, message):
    with pytest.raises(UserError, match=rf"^model\.{name} {message}"):
        changed(MODEL, {name: value})


@pytest.mark.parametrize("network", ["encoder", "to_map"])
def test_more_halvings_than_a_side_allows_raise(network):
    message = "num_downsamples=3 halves a grid of 4x5 codes to less than one cell"
    with pytest.raises(UserError, match=rf"^model\.{network}\.{message}"):
        changed(MODEL, {f"{network}.num_downsamples": 3})


def test_arrays_of_other_models_raise(trained):
    model, params, every = trained
    with pytest.raises(UserError, match=r"codes must have shape \[B, 1, 2, 1\]"):
        model.encode(params, np.zeros((2, 2, 1, 1), int))
    with pytest.raises(UserError, match=r"codes must be in 0 ... 2, got 0 ... 3"):
        model.encode(params, np.array([[[[0], [3]]]]))
    with pytest.raises(UserError, match=r"global codes must have shape \[B, 2\]"):
        model.log_prob(params, every, np.zeros((9, 3), int))
    with pytest.raises(UserError, match=r"global codes must be in 0 ... 3"):
        model.decode(params, jax.random.key(0), np.array([[0, 4]]))


SIZES = {
    "channels": 4,
    "num_downsamples": 2,
    "residual_blocks": 0,
    "residual_channels": 3,
}


def applied(network, x):
    """Return the outputs of an initialised network."""
    initialise_and_apply = jax.jit(lambda key, x: network.init_with_output(key, x)[0])
    return np.asarray(initialise_and_apply(jax.random.key(0), x))


def test_every_code_of_every_cell_reaches_the_latents():
    """Change one code at a time; the two codes of a cell have different tables."""
    network = GlobalEncoder(out_features=6, num_codes=2, codes_per_cell=2, **SIZES)
    one_changed = jnp.eye(3 * 5 * 2, dtype=int).reshape(-1, 3, 5, 2)
    none = jnp.zeros((1, 3, 5, 2), int)
    z_e = applied(network, jnp.concatenate([none, one_changed]))
    assert z_e.shape == (31, 6)
    assert z_e.dtype == jnp.float32
    distances = np.abs(z_e[:, None] - z_e[None]).max(axis=-1) + np.eye(31)
    assert distances.min() > 1e-4


def test_every_latent_reaches_every_cell_of_the_map():
    network = GlobalDecoder((5, 7), out_channels=3, **SIZES)
    z = 3 * jnp.concatenate([jnp.zeros((1, 6)), jnp.eye(6), -jnp.eye(6)])
    features = applied(network, z)
    assert features.shape == (13, 5, 7, 3)
    # A ReLU may be off for one of +z and -z.
    moved = np.abs(features[1:] - features[:1]).max(axis=-1).reshape(2, 6, 5, 7)
    assert moved.max(axis=0).min() > 1e-3
    # The map starts far from zero: the PixelCNN would ignore a map near zero.
    assert np.std(features[1:]) > 0.2
