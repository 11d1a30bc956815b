"""The continuous VAE: its bound and gradient, against NumPy and Monte Carlo.

Numbers in brackets are rows of the list of known defects in docs/conformance.md.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import (
    AUTOENCODER,
    changed,
    evaluate,
    image_batch,
    random_params,
    step,
)

from vqvae_jax import metrics
from vqvae_jax.models import vae
from vqvae_jax.models.vae import VAE, Posterior
from vqvae_jax.networks.autoencoder import Decoder, Encoder
from vqvae_jax.runtime.errors import UserError

SHAPE, L = (4, 8, 3), 2
GRID = (2, 4, L)
MODEL = VAE(
    image_shape=SHAPE,
    latent_dim=L,
    encoder=Encoder(**AUTOENCODER),
    decoder=Decoder(**AUTOENCODER),
    likelihood="gaussian",
)
SQUARED_ERROR = changed(MODEL, {"likelihood": "mse"})
KEY = jax.random.key(0)


def make_batch():
    return image_batch(SHAPE)


@functools.partial(jax.jit, static_argnums=0)
def losses(model, params, keys, batch):
    return jax.lax.map(lambda key: model.loss(params, key, batch)[0], keys)


@functools.partial(jax.jit, static_argnums=0)
def posterior_of(model, params, images):
    heads = model._encoder.apply(params.encoder, jnp.float32(images) / 127.5 - 1)
    return heads[..., :L], heads[..., L:]


@functools.partial(jax.jit, static_argnums=0)
def decoded(model, params, z):
    return model._decoder.apply(params.decoder, z)


@pytest.fixture(scope="module")
def params():
    return random_params(SQUARED_ERROR)


def posterior(mean, log_variance):
    shape = (1, 1, 1, -1)
    return Posterior(
        *(jnp.asarray(x, "float32").reshape(shape) for x in (mean, log_variance))
    )


class TestKL:
    MEANS = np.array([0.0, 0.0, 1.3, -2.0, 0.4, 0.0, 3.0])
    LOG_VARIANCES = np.array([0.0, 1.0, -1.0, 0.5, -6.0, 1e-3, 2.0])

    def test_equals_numerical_integration(self):
        """Integrate q log(q / p) by the trapezoid rule in float64."""
        mean, sigma = self.MEANS[:, None], np.exp(0.5 * self.LOG_VARIANCES[:, None])
        z = mean + sigma * np.linspace(-12, 12, 20_001)[None]
        log_q = -0.5 * ((z - mean) / sigma) ** 2 - np.log(sigma)
        q = np.exp(log_q) / math.sqrt(2 * math.pi)
        expected = np.trapezoid(q * (log_q + 0.5 * z**2), z, axis=1)
        ours = vae.kl_to_standard_normal(posterior(self.MEANS, self.LOG_VARIANCES))
        np.testing.assert_allclose(ours[0, 0, 0], expected, rtol=1e-5, atol=1e-9)

    def test_equals_the_mean_over_draws(self):
        keys = jax.random.split(KEY, 20_000)
        q = posterior(self.MEANS, self.LOG_VARIANCES)
        many = jax.tree.map(lambda x: jnp.broadcast_to(x, (20_000, *x.shape[1:])), q)
        z = np.float64(vae.reparameterized(keys, many))[:, 0, 0]
        sigma = np.exp(0.5 * self.LOG_VARIANCES)[None]
        log_q = -0.5 * ((z - self.MEANS[None]) / sigma) ** 2 - np.log(sigma)
        draws = log_q + 0.5 * z**2
        error = draws.std(axis=0) / math.sqrt(20_000) + 1e-6
        ours = np.asarray(vae.kl_to_standard_normal(q))[0, 0, 0]
        assert np.abs((draws.mean(axis=0) - ours) / error).max() < 4


class TestBound:
    def test_is_the_mean_over_draws_of_z(self, params):
        """Reconstruction and KL in nats per value, with z drawn by NumPy."""
        batch = jax.tree.map(lambda x: x[:1], make_batch())
        ours = np.float64(
            losses(SQUARED_ERROR, params, jax.random.split(KEY, 3000), batch)
        )
        mean, log_variance = map(
            np.float64, posterior_of(SQUARED_ERROR, params, batch["image"])
        )
        assert np.abs(log_variance).max() < 5
        epsilon = np.random.default_rng(2).normal(size=(3000, *GRID))
        z = mean + np.exp(0.5 * log_variance) * epsilon
        outputs = np.float64(decoded(SQUARED_ERROR, params, np.float32(z)))
        error = np.float64(batch["image"]) / 127.5 - 1 - outputs
        reconstruction = (error**2 / (2 * 0.5**2)).mean(axis=(1, 2, 3))
        kl = 0.5 * (mean**2 + np.exp(log_variance) - log_variance - 1).sum() / 96
        expected = reconstruction + kl
        spread = math.hypot(ours.std(), expected.std()) / math.sqrt(3000)
        assert abs(ours.mean() - expected.mean()) < 4 * spread
        np.testing.assert_allclose(ours.std(), expected.std(), rtol=0.1)
        assert 4 * spread < 0.5 * kl

    @pytest.mark.parametrize("part", ["encoder", "decoder"])
    def test_gradient_equals_finite_differences(self, part):
        """With a fixed key, so that the draw moves with the posterior."""
        params = random_params(MODEL)
        _, gradient = step(MODEL, params, KEY, make_batch())
        slope = getattr(gradient, part)
        norm = math.sqrt(sum(np.sum(x**2) for x in jax.tree.leaves(slope)))

        def along(size):
            moved = jax.tree.map(
                lambda x, d: x + size * d / norm, getattr(params, part), slope
            )
            moved = params._replace(**{part: moved})
            return float(step(MODEL, moved, KEY, make_batch())[0][0])

        assert norm > 0.1
        assert (along(3e-3) - along(-3e-3)) / 6e-3 == pytest.approx(norm, rel=0.01)

    def test_variance_is_clipped(self, params):
        """Huge outputs of the encoder give a finite bound and finite gradients."""
        huge = params._replace(encoder=jax.tree.map(lambda x: 300 * x, params.encoder))
        (loss, (means, _)), gradient = step(SQUARED_ERROR, huge, KEY, make_batch())
        assert np.isfinite(loss)
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradient))
        mean, log_variance = map(
            np.float64, posterior_of(MODEL, huge, make_batch()["image"])
        )
        assert np.abs(log_variance).max() > 100
        log_variance = np.clip(log_variance, -12, 6)
        kl = 0.5 * (mean**2 + np.exp(log_variance) - log_variance - 1)
        expected = kl.sum(axis=(1, 2, 3)).mean() / 96
        assert metrics.compute(means)["kl"] == pytest.approx(expected, rel=1e-4)


class TestEvaluate:
    def test_bits_psnr_and_terms_equal_numpy(self):
        """[13] (reconstruction + KL) / ln 2; PSNR of the posterior mean's image."""
        params = random_params(MODEL)
        values = metrics.compute(evaluate(MODEL, params, make_batch()))
        total = values["reconstruction"] + values["kl"]
        assert values["loss"] == pytest.approx(total, rel=1e-5)
        assert values["bits_per_dim"] == pytest.approx(total / math.log(2), rel=1e-5)
        images = np.float64(make_batch()["image"])
        z, _ = posterior_of(MODEL, params, make_batch()["image"])
        outputs = np.float64(decoded(MODEL, params, z)).reshape(5, 4, 8, 3, 2)[..., 0]
        mse = (images - np.clip((outputs + 1) * 127.5, 0, 255)) ** 2
        psnr = 10 * np.log10(255**2 / mse.mean(axis=(1, 2, 3))).mean()
        assert values["psnr_db"] == pytest.approx(psnr, rel=1e-4)

    def test_a_density_has_no_bits(self, params):
        values = evaluate(SQUARED_ERROR, params, make_batch())
        assert set(values) == {"reconstruction", "kl", "psnr_db", "loss"}

    def test_draws_are_averaged(self, params):
        batch = make_batch()
        many = changed(SQUARED_ERROR, {"samples_per_image": 1000})
        ours = metrics.compute(evaluate(many, params, batch))["loss"]
        draws = losses(SQUARED_ERROR, params, jax.random.split(KEY, 1000), batch)
        spread = float(draws.std()) / math.sqrt(500)
        assert abs(ours - float(draws.mean())) < 4 * spread


class TestCoding:
    def test_encode_decode_and_reconstruct_equal_the_networks(self, params):
        images = make_batch()["image"]
        z = jax.jit(SQUARED_ERROR.encode)(params, images)
        expected, _ = posterior_of(SQUARED_ERROR, params, images)
        assert z.shape == (5, *GRID) == (5, *SQUARED_ERROR.grid)
        np.testing.assert_allclose(z, expected, rtol=1e-5, atol=1e-6)
        decode = jax.jit(SQUARED_ERROR.decode)
        ours = decode(params, z)
        assert (ours.shape, ours.dtype) == (images.shape, jnp.uint8)
        mean = np.clip((decoded(SQUARED_ERROR, params, z) + 1) * 127.5, 0, 255)
        assert np.abs(np.float64(ours) - mean).max() < 0.501
        again = jax.jit(SQUARED_ERROR.reconstruct)(params, images)
        assert np.abs(np.int32(again) - np.int32(ours)).max() <= 1

    def test_samples_are_decoded_draws_of_the_prior(self, params):
        sample = jax.jit(SQUARED_ERROR.sample, static_argnames="num_samples")
        ours = sample(params, KEY, num_samples=6)
        assert (ours.shape, ours.dtype) == ((6, *SHAPE), jnp.uint8)
        z = jax.random.normal(KEY, (6, *GRID))
        expected = jax.jit(SQUARED_ERROR.decode)(params, z)
        assert np.abs(np.int32(ours) - np.int32(expected)).max() <= 1
        assert np.ptp(np.int32(ours), axis=0).max() > 10


@pytest.mark.parametrize(
    ("name", "value"),
    [("latent_dim", 0), ("samples_per_image", 0), ("log_variance_range", (2.0, 1.0))],
)
def test_invalid_options_raise(name, value):
    with pytest.raises(UserError, match=rf"^model\.{name} must "):
        changed(MODEL, {name: value})
