"""Parts of every image autoencoder: sizes, keys, many samples, image quality."""

import dataclasses

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from tiny_models import changed, every_model, random_params

from vqvae_jax import metrics
from vqvae_jax.models import autoencoder, vae, vimco, vqvae
from vqvae_jax.models.autoencoder import ImageAutoencoder
from vqvae_jax.networks.autoencoder import Decoder, Encoder
from vqvae_jax.quantizers import VQ
from vqvae_jax.runtime.errors import UserError

SHAPE = (4, 8, 3)
MODEL = ImageAutoencoder(
    image_shape=SHAPE,
    encoder=Encoder(channels=8, num_downsamples=1),
    decoder=Decoder(channels=8, num_downsamples=1),
)


def images_of(seed, count=5):
    rng = np.random.default_rng(seed)
    return rng.integers(256, size=(count, 4, 8, 3)).astype(np.uint8)


@pytest.fixture
def unchecked_annotations():
    """Annotations are not checked, as outside of tests."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.usefixtures("unchecked_annotations")
@pytest.mark.parametrize(
    ("model", "params"),
    [
        (vqvae.VQVAE(image_shape=SHAPE), vqvae.Params(None, None, None)),
        (vae.VAE(image_shape=SHAPE), vae.Params(None, None)),
        (vimco.VIMCO(image_shape=SHAPE), vimco.Params(None, None, None)),
    ],
    ids=["vqvae", "vae", "vimco"],
)
@pytest.mark.parametrize("dtype", ["float32", "uint16"])
def test_images_of_another_dtype_raise(model, params, dtype):
    images = (images_of(0) / 255).astype(dtype)
    for call in (model.encode, model.reconstruct):
        with pytest.raises(UserError, match=rf"^images must be uint8 .*, got {dtype}"):
            call(params, images)


@pytest.mark.parametrize("name", ["vqvae", "vae", "vimco"])
def test_arrays_of_other_shapes_raise(name):
    """Width and height are exchanged."""
    model = dataclasses.replace(every_model()[name], image_shape=SHAPE)
    params = random_params(model)
    images = jnp.zeros((2, 8, 4, 3), jnp.uint8)
    batch = {"image": images, "mask": jnp.ones(2, bool)}
    message = r"\[B, 4, 8, 3\], got \(2, 8, 4, 3\)"
    for call in (model.encode, model.reconstruct):
        with pytest.raises(UserError, match=message):
            call(params, images)
    with pytest.raises(UserError, match=message):
        model.loss(params, jax.random.key(0), batch)
    features = model.grid[2]
    z = jnp.zeros((1, 4, 2, features), "float32" if name == "vae" else "int32")
    message = rf"\[B, 2, 4, {features}\], got \(1, 4, 2, {features}\)"
    with pytest.raises(UserError, match=message):
        model.decode(params, z)


@pytest.mark.parametrize(
    ("model", "params"),
    [
        (
            vqvae.VQVAE(image_shape=SHAPE, quantizer=VQ(num_codes=6)),
            vqvae.Params(None, None, None),
        ),
        (vimco.VIMCO(image_shape=SHAPE, num_codes=6), vimco.Params(None, None, None)),
    ],
    ids=["vqvae", "vimco"],
)
@pytest.mark.parametrize("code", [-1, 6])
def test_codes_out_of_range_raise(model, params, code):
    codes = np.full((1, 1, 2, 1), code)
    with pytest.raises(UserError, match=rf"^codes must be in 0 ... 5, got {code}"):
        model.decode(params, codes)
    codes = jnp.asarray(codes)
    with pytest.raises(UserError, match=rf"^codes must be in 0 ... 5, got {code}"):
        jax.jit(lambda params: model.decode(params, codes))(params)


class TestKeysOf:
    def test_a_key_depends_on_its_image_alone(self):
        images = images_of(0)
        keys = jax.jit(autoencoder.keys_of)(images)
        again = autoencoder.keys_of(images[3:4])
        assert keys[3] == again[0]
        swapped = images.copy()
        swapped[0, 0, 0, :2] = images[0, 0, 0, 1::-1]
        all_keys = jnp.concatenate([keys, autoencoder.keys_of(swapped[:1])])
        assert len(np.unique(jax.random.key_data(all_keys), axis=0)) == 6

    def test_images_that_differ_in_one_value_have_different_keys(self):
        images = np.zeros((256, 4, 8, 3), np.uint8)
        images[:, 2, 5, 1] = np.arange(256)
        data = jax.random.key_data(autoencoder.keys_of(images))
        assert len(np.unique(data, axis=0)) == 256


@pytest.mark.parametrize("at_once", [1, 2, 6])
def test_over_samples_stacks_results_in_order(at_once):
    def square(number):
        return {"square": number**2, "pair": jnp.stack([number, number + 1])}

    ours = autoencoder.over_samples(square, 6, at_once=at_once)
    np.testing.assert_array_equal(ours["square"], np.arange(6) ** 2)
    np.testing.assert_array_equal(
        ours["pair"], np.arange(6)[:, None] + np.array([[0, 1]])
    )


def test_quality_is_the_psnr_of_valid_examples():
    images = images_of(1)
    means = np.float32(images_of(2))
    mask = np.array([True, False, True, True, False])
    mse = ((np.float64(images) - means) ** 2).mean(axis=(1, 2, 3))
    expected = 10 * np.log10(255**2 / mse)[mask].mean()
    ours = autoencoder.quality(
        jnp.asarray(images), jnp.asarray(means), jnp.asarray(mask)
    )
    assert metrics.compute(ours) == pytest.approx({"psnr_db": expected}, rel=1e-5)


def test_sums_and_means_are_per_example():
    x = jnp.arange(24.0).reshape(2, 3, 4)
    np.testing.assert_allclose(autoencoder.sum_of_each(x), x.sum((1, 2)))
    np.testing.assert_allclose(autoencoder.mean_of_each(x), x.mean((1, 2)))


def test_num_dims_counts_the_values_of_an_image():
    assert MODEL.num_dims == 4 * 8 * 3


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("encoder.channels", 0),
        ("decoder.channels", 0),
        ("encoder.residual_channels", -1),
        ("decoder.residual_channels", -1),
        ("encoder.residual_blocks", -1),
        ("decoder.residual_blocks", -1),
        ("encoder.num_downsamples", -1),
        ("encoder.num_downsamples", 17),
        ("encoder.dtype", "float16"),
        ("decoder.dtype", "float16"),
        ("likelihood", "cosine"),
    ],
)
def test_invalid_options_raise(name, value):
    with pytest.raises(UserError, match=rf"^model\.{name}\b.*{value}"):
        changed(MODEL, {name: value})


def test_sides_must_be_multiples_of_the_downsampling():
    halvings = {"encoder.num_downsamples": 3, "decoder.num_downsamples": 3}
    message = r"^model.encoder.num_downsamples=3 .* multiples of 8, .* 4x8"
    with pytest.raises(UserError, match=message):
        changed(MODEL, halvings)


def test_encoder_and_decoder_must_downsample_alike():
    message = r"^model.decoder.num_downsamples=2 must equal encoder.num_downsamples=1"
    with pytest.raises(UserError, match=message):
        changed(MODEL, {"decoder.num_downsamples": 2})
