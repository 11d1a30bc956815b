"""PSNR and SSIM against SciPy in float64, and closed forms."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.signal import convolve2d

from vqvae_jax import image_quality
from vqvae_jax.models.vqvae import VQVAE
from vqvae_jax.networks.autoencoder import Decoder, Encoder
from vqvae_jax.quantizers import VQ
from vqvae_jax.runtime.errors import UserError

# Different sizes on all axes, so that swapped axes are detected.
SHAPE = (13, 18, 3)


def ssim_of_channel(x, y):
    """Average equation 13 of Wang et al. over all windows inside the image."""
    offsets = np.arange(11) - 5
    window = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 1.5**2))
    window /= window.sum()

    def average(z):
        return convolve2d(z, window, mode="valid")

    mx, my = average(x), average(y)
    vx, vy = average(x * x) - mx**2, average(y * y) - my**2
    cov = average(x * y) - mx * my
    c1, c2 = 0.01**2, 0.03**2
    top = (2 * mx * my + c1) * (2 * cov + c2)
    return np.mean(top / ((mx**2 + my**2 + c1) * (vx + vy + c2)))


def ssim_of_each(images, others):
    return [
        np.mean([ssim_of_channel(x[..., c] / 255, y[..., c] / 255) for c in range(3)])
        for x, y in zip(images, others, strict=True)
    ]


@pytest.fixture(scope="module")
def pairs():
    """Return pairs: noise, a ramp with noise, an image and its negative, equal ones."""
    rng = np.random.default_rng(0)
    first = rng.integers(256, size=(4, *SHAPE)).astype(float)
    first[1] = np.linspace(20, 200, np.prod(SHAPE)).reshape(SHAPE)
    second = np.clip(np.round(first + rng.normal(scale=20, size=first.shape)), 0, 255)
    second[2] = 255 - first[2]
    second[3] = first[3]
    return first, second


def test_ssim_equals_wang_et_al(pairs):
    ours = jax.jit(image_quality.ssim)(*map(jnp.float32, pairs))
    expected = ssim_of_each(*pairs)
    np.testing.assert_allclose(ours, expected, atol=2e-5)
    assert expected[2] < 0 < expected[1] < expected[0] < expected[3] == 1


def test_ssim_accepts_uint8():
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(2, 2, *SHAPE)).astype("u1")
    ours = image_quality.ssim(*map(jnp.asarray, images))
    np.testing.assert_allclose(ours, ssim_of_each(*images), atol=2e-5)


def test_ssim_of_constant_images_has_a_closed_form():
    """Without variance only the first factor remains: (2ab + c1) / (a^2 + b^2 + c1)."""
    a, b = 51 / 255, 204 / 255
    flat = [jnp.full((1, 11, 11, 1), 255 * value, jnp.float32) for value in (a, b)]
    expected = (2 * a * b + 1e-4) / (a**2 + b**2 + 1e-4)
    assert image_quality.ssim(*flat).item() == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("shape", [(10, 32), (32, 10)])
def test_ssim_rejects_images_smaller_than_the_window(shape):
    images = jnp.zeros((1, *shape, 1))
    with pytest.raises(UserError, match=f"got {shape[0]}x{shape[1]}"):
        image_quality.ssim(images, images)


MODEL = VQVAE(
    image_shape=(12, 16, 3),
    quantizer=VQ(num_codes=5, dim=3, codebook_init="uniform"),
    encoder=Encoder(channels=8, residual_blocks=0, residual_channels=1),
    decoder=Decoder(channels=8, residual_blocks=0, residual_channels=1),
)


def test_a_models_ssim_is_that_of_its_rounded_reconstructions():
    """Padding does not count; for images smaller than the window there is no SSIM."""
    images = np.random.default_rng(1).integers(256, size=(3, 12, 16, 3)).astype("u1")
    mask = np.array([True, False, True])
    batch = {"image": jnp.asarray(images), "mask": jnp.asarray(mask)}

    @jax.jit
    def run(batch):
        params = MODEL.init(jax.random.key(0), batch)
        # Scale up the decoder: untrained, it outputs nearly constant images.
        decoder = jax.tree.map(lambda leaf: 10 * leaf, params.decoder)
        params = params._replace(decoder=decoder)
        return MODEL.evaluate(params, batch), MODEL.reconstruct(params, batch["image"])

    results, decoded = run(batch)
    assert len(np.unique(decoded)) > 10
    expected = sum(ssim_of_each(np.float64(images[mask]), np.float64(decoded[mask])))
    assert results["ssim"].weight == 2
    assert float(results["ssim"].total) == pytest.approx(expected, abs=1e-6)

    small = dataclasses.replace(MODEL, image_shape=(8, 16, 3))
    batch = {"image": batch["image"][:, :8], "mask": batch["mask"]}
    params = jax.eval_shape(small.init, jax.random.key(0), batch)
    values = jax.eval_shape(small.evaluate, params, batch)
    assert "psnr_db" in values
    assert "ssim" not in values


def test_psnr_is_computed_per_image(pairs):
    first, second = pairs
    ours = image_quality.psnr_db(*map(jnp.float32, pairs))
    mse = np.mean((first - second) ** 2, axis=(1, 2, 3))
    expected = 10 * np.log10(255**2 / np.maximum(mse, 1e-10))
    np.testing.assert_allclose(ours, expected, rtol=1e-5)
    # Differences of uint8 would wrap around.
    in_bytes = image_quality.psnr_db(jnp.uint8(first[:1]), jnp.uint8(second[:1]))
    np.testing.assert_array_equal(in_bytes, ours[:1])
    one_off = image_quality.psnr_db(jnp.zeros((1, 2, 2, 1)), jnp.ones((1, 2, 2, 1)))
    assert one_off.item() == pytest.approx(20 * np.log10(255))
