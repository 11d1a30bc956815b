"""What the models beside the VQ-VAE share: sizes, keys, many samples, quality."""

import dataclasses

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from vqvae_jax import metrics
from vqvae_jax.models import (
    autoencoder,
    vae,
    vimco,
    vqvae,
)
from vqvae_jax.models.autoencoder import ImageAutoencoder
from vqvae_jax.runtime.errors import UserError

MODEL = ImageAutoencoder(image_shape=(4, 8, 3), stages=1, units=8)


def images_of(seed, count=5):
    rng = np.random.default_rng(seed)
    return rng.integers(256, size=(count, 4, 8, 3)).astype(np.uint8)


@pytest.fixture
def as_for_users():
    """Annotations are not checked, as outside of tests."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.usefixtures("as_for_users")
@pytest.mark.parametrize(
    ("model", "params"),
    [
        (vqvae.VQVAE(image_shape=(4, 8, 3)), vqvae.Params(None, None, None)),
        (vae.VAE(image_shape=(4, 8, 3)), vae.Params(None, None)),
        (vimco.VIMCO(image_shape=(4, 8, 3)), vimco.Params(None, None, None)),
    ],
    ids=["vqvae", "vae", "vimco"],
)
@pytest.mark.parametrize("dtype", ["float32", "uint16"])
def test_images_of_other_values_are_refused(model, params, dtype):
    images = (images_of(0) / 255).astype(dtype)
    for call in (model.encode, model.reconstruct):
        with pytest.raises(UserError, match=rf"^images must be uint8 .*, got {dtype}"):
            call(params, images)


@pytest.mark.parametrize(
    ("model", "params"),
    [
        (vqvae.VQVAE, vqvae.Params(None, None, None)),
        (vimco.VIMCO, vimco.Params(None, None, None)),
    ],
    ids=["vqvae", "vimco"],
)
@pytest.mark.parametrize("code", [-1, 6])
def test_codes_without_a_row_are_refused(model, params, code):
    codes = np.full((1, 1, 2, 1), code)
    model = model(image_shape=(4, 8, 3), num_codes=6)
    with pytest.raises(UserError, match=rf"^codes must be in 0 ... 5, got {code}"):
        model.decode(params, codes)
    codes = jnp.asarray(codes)
    with pytest.raises(UserError, match=rf"^codes must be in 0 ... 5, got {code}"):
        jax.jit(lambda params: model.decode(params, codes))(params)


class TestKeysOf:
    def test_each_image_has_its_own_whatever_the_batch(self):
        images = images_of(0)
        keys = jax.jit(autoencoder.keys_of)(images)
        again = autoencoder.keys_of(images[3:4])
        assert keys[3] == again[0]
        swapped = images.copy()
        swapped[0, 0, 0, :2] = images[0, 0, 0, 1::-1]
        all_keys = jnp.concatenate([keys, autoencoder.keys_of(swapped[:1])])
        assert len(np.unique(jax.random.key_data(all_keys), axis=0)) == 6

    def test_two_images_that_differ_in_one_value(self):
        images = np.zeros((256, 4, 8, 3), np.uint8)
        images[:, 2, 5, 1] = np.arange(256)
        data = jax.random.key_data(autoencoder.keys_of(images))
        assert len(np.unique(data, axis=0)) == 256


@pytest.mark.parametrize("at_once", [1, 2, 6])
def test_over_samples_stacks_in_order(at_once):
    def square(number):
        return {"square": number**2, "pair": jnp.stack([number, number + 1])}

    ours = autoencoder.over_samples(square, 6, at_once=at_once)
    np.testing.assert_array_equal(ours["square"], np.arange(6) ** 2)
    np.testing.assert_array_equal(
        ours["pair"], np.arange(6)[:, None] + np.array([[0, 1]])
    )


def test_image_quality_is_psnr_of_valid_examples():
    images = images_of(1)
    means = np.float32(images_of(2))
    mask = np.array([True, False, True, True, False])
    mse = ((np.float64(images) - means) ** 2).mean(axis=(1, 2, 3))
    expected = 10 * np.log10(255**2 / mse)[mask].mean()
    ours = autoencoder.quality(
        jnp.asarray(images), jnp.asarray(means), jnp.asarray(mask)
    )
    assert metrics.compute(ours) == pytest.approx({"psnr_db": expected}, rel=1e-5)


def test_sums_and_means_are_of_each_example():
    x = jnp.arange(24.0).reshape(2, 3, 4)
    np.testing.assert_allclose(autoencoder.sum_of_each(x), x.sum((1, 2)))
    np.testing.assert_allclose(autoencoder.mean_of_each(x), x.mean((1, 2)))


def test_everything_follows_the_gradient():
    params = {"a": jnp.zeros(2), "b": (jnp.ones(3),)}
    assert MODEL.trainable(params) == {"a": True, "b": (True,)}
    assert MODEL.update(params, jax.random.key(0), None, axis_name="data") is params
    assert MODEL.num_dims == 96


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("units", 0),
        ("residual_units", -1),
        ("residual_blocks", -1),
        ("stages", -1),
        ("stages", 3),
        ("likelihood", "cosine"),
        ("dtype", "float16"),
    ],
)
def test_impossible_values_are_told(name, value):
    with pytest.raises(UserError, match=rf"^{name}\b.*{value}"):
        dataclasses.replace(MODEL, **{name: value})
