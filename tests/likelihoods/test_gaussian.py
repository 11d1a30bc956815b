"""The discretized Gaussian and the squared error against SciPy.

Numbers in brackets are rows of the list of known defects in docs/conformance.md.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from likelihood_checks import (
    assert_draws_follow,
    assert_is_a_distribution,
    every_log_prob,
    log_of_bins,
)
from scipy import special

from vqvae_jax import likelihoods
from vqvae_jax.likelihoods import gaussian
from vqvae_jax.runtime.errors import UserError

GAUSSIAN = likelihoods.DiscretizedGaussian()
MSE = likelihoods.MeanSquaredError()

# Means and log-scales of the Gaussian: inside, at the edges and far outside.
MEANS = (-1e6, -101.0, -30.0, -2.0, -1.0, 0.0, 0.3, 1.0, 1.004, 5.0, 30.0, 1e5)
LOG_SCALES = (-100.0, -6.0, -3.0, 0.0, 3.0, 50.0)
FIXED_SCALES = (np.exp(-5.9), 0.1, 1.0, 20.0)


def gaussian_outputs():
    grid = np.stack(np.meshgrid(MEANS, LOG_SCALES, indexing="ij"), axis=-1)
    return grid.reshape(-1, 2).astype(np.float32)


def fixed_outputs():
    return np.float32(MEANS)[:, None]


def interval(mean, log_scale):
    """Return the log-probabilities of the 256 bins in float64."""
    mean = np.float64(np.clip(mean, *GAUSSIAN.mean_range))[..., None]
    scale = np.exp(np.float64(np.clip(log_scale, *GAUSSIAN.log_scale_range)))[..., None]
    edges = ((np.arange(257) - 0.5) / 127.5 - 1 - mean) / scale
    return log_of_bins(special.log_ndtr, edges)


class TestDiscretizedGaussian:
    def test_sums_to_one_with_finite_gradients(self):
        """[13] Any decoder output gives a distribution over 256 values."""
        assert_is_a_distribution(GAUSSIAN, gaussian_outputs())

    def test_log_prob_and_gradient_equal_scipy(self):
        """Includes the far tails, where logarithms grow quadratically."""
        outputs = gaussian_outputs()
        mean, log_scale = np.float64(outputs.T)
        ours, slopes = every_log_prob(GAUSSIAN, outputs)
        expected = interval(mean, log_scale)
        np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-4)
        step = 1e-6 * (1 + np.abs(mean))
        for_mean = interval(mean + step, log_scale) - interval(mean - step, log_scale)
        for_mean /= 2 * step[:, None]
        inside = np.abs(mean) < 50
        for value in (0, 100, 255):
            np.testing.assert_allclose(
                slopes[inside, value, 0], for_mean[inside, value], rtol=5e-3, atol=1e-3
            )
        # Beyond its range a parameter has no gradient, but the other one does.
        assert not np.any(slopes[~inside, :, 0])
        assert not np.any(slopes[np.abs(log_scale) > 6, :, 1])

    def test_mean_is_on_the_scale_of_the_values(self):
        means = np.array([-3.0, -1.0, -0.2, 0.0, 1.0, 2.0], np.float32)
        outputs = np.stack([means, np.zeros(6, np.float32)], axis=-1)
        ours = GAUSSIAN.mean(jnp.asarray(outputs.reshape(1, 1, 6, 2)))
        expected = np.clip((means + 1) * 127.5, 0, 255).reshape(1, 1, 6, 1)
        np.testing.assert_allclose(ours, expected, rtol=1e-6)

    @pytest.mark.parametrize("mean", [0.1, -1.0, 3.0])
    def test_sample_frequencies_match_the_probabilities(self, mean):
        log_scale = -2.5
        probs = np.exp(interval(np.float64(mean), np.float64(log_scale)))
        assert_draws_follow(GAUSSIAN, [mean, log_scale], probs)


def test_gradient_of_log_ndtr_is_exact_in_the_tail():
    """phi / Phi equals sqrt(2 / pi) / erfcx(-x / sqrt(2))."""
    x = -np.geomspace(10.001, 4e6, 1000).astype(np.float32)
    slope = jax.grad(lambda x: gaussian._log_ndtr(x).sum())(jnp.asarray(x))
    expected = np.sqrt(2 / np.pi) / special.erfcx(-np.float64(x) / np.sqrt(2))
    np.testing.assert_allclose(slope, expected, rtol=3e-7)


class TestFixedScale:
    @pytest.mark.parametrize("scale", FIXED_SCALES)
    def test_equals_the_learned_scale_at_that_value(self, scale):
        fixed = likelihoods.DiscretizedGaussian(scale=float(scale))
        assert_is_a_distribution(fixed, fixed_outputs())
        ours, slopes = every_log_prob(fixed, fixed_outputs())
        mean, log_scale = np.float64(fixed_outputs()[:, 0]), np.log(scale)
        expected = interval(mean, np.full_like(mean, log_scale))
        np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-4)
        learned = np.stack([mean, np.full_like(mean, log_scale)], axis=-1)
        _, expected = every_log_prob(GAUSSIAN, np.float32(learned))
        # The two scales differ in the last digit, which the far tails amplify.
        np.testing.assert_allclose(
            slopes[..., 0], expected[..., 0], rtol=2e-3, atol=1e-4
        )
        probs = np.exp(interval(np.float64(0.3), log_scale))
        assert_draws_follow(fixed, np.array([0.3], np.float32), probs)

    @pytest.mark.parametrize("scale", [0.0, -1.0, 1e-3, 21.0, float("nan")])
    def test_invalid_scales_are_rejected(self, scale):
        with pytest.raises(UserError, match=rf"scale must be in 0\.0025.*got {scale}"):
            likelihoods.DiscretizedGaussian(scale=scale)


class TestMeanSquaredError:
    def test_is_not_a_distribution_over_values(self):
        """[13] So it is never converted to bits/dim."""
        assert not MSE.is_discrete

    def test_log_prob_mean_and_sample(self):
        rng = np.random.default_rng(2)
        outputs = rng.normal(size=(2, 3, 4, 3)).astype(np.float32)
        images = rng.integers(256, size=outputs.shape).astype(np.uint8)
        error = images / 127.5 - 1 - np.float64(outputs)
        ours = MSE.log_prob(jnp.asarray(outputs), jnp.asarray(images))
        np.testing.assert_allclose(ours, -(error**2) / (2 * 0.5**2), rtol=1e-4)
        mean = np.clip((np.float64(outputs) + 1) * 127.5, 0, 255)
        np.testing.assert_allclose(MSE.mean(jnp.asarray(outputs)), mean, atol=1e-3)
        sample = MSE.sample(jax.random.key(0), jnp.asarray(outputs))
        assert sample.dtype == jnp.uint8
        np.testing.assert_array_equal(sample, np.round(mean).astype(np.uint8))
