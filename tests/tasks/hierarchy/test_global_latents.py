"""p(codes | latents): a distribution, drawn from as it is scored."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqvae_jax.models.prior import Prior
from vqvae_jax.runtime.errors import UserError
from vqvae_jax.tasks.hierarchy.global_latents import GlobalLatents
from vqvae_jax.tasks.hierarchy.model import Hierarchy

SMALL = {
    "latents": 2,
    "dim": 3,
    "stages": 0,
    "encoder_units": 8,
    "residual_blocks": 0,
    "map_features": 5,
    "layers": 2,
    "units": 8,
    "kernel_size": 3,
}


@pytest.fixture(scope="module")
def trained():
    """A model of 1x2 cells of 3 codes, with random parameters of some size."""
    sizes = {"grid": (1, 2, 1), "num_codes": 3, "latent_codes": 4}
    model = Hierarchy(**sizes, codebook_init="uniform", **SMALL)
    batch = {"codes": jnp.zeros((8, 1, 2, 1), int), "mask": jnp.ones(8, bool)}
    params = jax.jit(model.init)(jax.random.key(0), batch)
    rows = np.random.default_rng(0).normal(0, 10, (2, 4, 3)).astype(np.float32)
    codebook = params.codebook._replace(embeddings=jnp.asarray(rows))
    params = params._replace(codebook=codebook)
    every = np.array(list(itertools.product(range(3), repeat=2)))
    return model, params, every.reshape(9, 1, 2, 1)


def test_probabilities_sum_to_one_and_depend_on_the_latents(trained):
    model, params, every = trained
    latents = np.repeat(np.array([[0, 1], [3, 2]]), 9, axis=0)
    twice = np.concatenate([every, every])
    p = np.exp(jax.jit(model.log_prob)(params, twice, latents)).reshape(2, 9)
    np.testing.assert_allclose(np.sum(p, axis=1), 1, rtol=1e-5)
    assert np.abs(p[0] - p[1]).max() > 0.02


def test_draws_have_these_probabilities(trained):
    model, params, every = trained
    latents = np.tile(np.array([[1, 3]]), (6000, 1))
    p = np.exp(jax.jit(model.log_prob)(params, every, latents[:9]))
    codes = model.decode(params, jax.random.key(2), latents)
    drawn = np.bincount(np.asarray(codes).reshape(-1, 2) @ [3, 1], minlength=9) / 6000
    # Four standard errors.
    assert np.all(np.abs(drawn - p) < 4 * np.sqrt(p * (1 - p) / 6000))


def test_the_twin_without_latents_is_the_same_pixelcnn():
    model = Hierarchy(grid=(4, 5, 1), num_codes=7, dropout=0.3, **SMALL)
    expected = Prior(
        grid=(4, 5, 1), num_codes=7, layers=2, units=8, kernel_size=3, dropout=0.3
    )
    assert model.without_latents == expected
    assert model.codes_per_frame == 20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"latents": 0}, "^latents must be at least 1, got 0"),
        ({"map_features": 0}, "^map_features must be at least 1"),
        ({"residual_blocks": -1}, "^residual_blocks must not be negative"),
        ({"stages": 3}, "^stages=3 halves a grid of 4x5 codes to less than one cell"),
        ({"kernel_size": 4}, "^kernel_size must be odd"),
        ({"dtype": "float16"}, "^dtype must be one of"),
    ],
)
def test_sizes_that_cannot_be(options, message):
    with pytest.raises(UserError, match=message):
        GlobalLatents(grid=(4, 5, 1), num_codes=7, **options)


def test_arrays_of_other_models_are_refused(trained):
    model, params, every = trained
    with pytest.raises(UserError, match=r"codes must have shape \[B, 1, 2, 1\]"):
        model.encode(params, np.zeros((2, 2, 1, 1), int))
    with pytest.raises(UserError, match=r"codes must be in 0 ... 2, got 0 ... 3"):
        model.encode(params, np.array([[[[0], [3]]]]))
    with pytest.raises(UserError, match=r"global codes must have shape \[B, 2\]"):
        model.log_prob(params, every, np.zeros((9, 3), int))
    with pytest.raises(UserError, match=r"global codes must be in 0 ... 3"):
        model.decode(params, jax.random.key(0), np.array([[0, 4]]))
