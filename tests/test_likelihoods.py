"""p(x|z): distributions over the 256 values, against SciPy and enumeration.

Numbers in brackets are rows of the list of known defects in docs/conformance.md.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from vqvae_jax import likelihoods
from vqvae_jax.errors import UserError

CATEGORICAL = likelihoods.Categorical()
GAUSSIAN = likelihoods.DiscretizedGaussian()
MSE = likelihoods.MeanSquaredError()

# Every value once, as the columns of an image.
EVERY_VALUE = np.arange(256, dtype=np.uint8).reshape(1, 1, 256, 1)

# Means and log-scales of the Gaussian: inside, at the edges, far outside.
MEANS = (-1e6, -101.0, -30.0, -2.0, -1.0, 0.0, 0.3, 1.0, 1.004, 5.0, 30.0, 1e5)
LOG_SCALES = (-100.0, -6.0, -3.0, 0.0, 3.0, 50.0)


def categorical_outputs():
    """Logits of 6 pixels: random, sharp, far from 0, and even."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(6, 256))
    logits[1] *= 30
    logits[2] *= 1e4
    logits[3] += 1e6
    logits[4, 7] = -1e9
    logits[5] = 0
    return logits.astype(np.float32)


def gaussian_outputs():
    grid = np.stack(np.meshgrid(MEANS, LOG_SCALES, indexing="ij"), axis=-1)
    return grid.reshape(-1, 2).astype(np.float32)


def interval(mean, log_scale):
    """Probabilities' logarithms and hazards of the 256 bins, in float64."""
    mean = np.float64(np.clip(mean, *GAUSSIAN.mean_range))[..., None]
    scale = np.exp(np.float64(np.clip(log_scale, *GAUSSIAN.log_scale_range)))[..., None]
    edges = ((np.arange(257) - 0.5) / 127.5 - 1 - mean) / scale
    edges[..., 0], edges[..., -1] = -np.inf, np.inf
    lower, upper = edges[..., :-1], edges[..., 1:]
    right = lower > 0
    low, high = np.where(right, -upper, lower), np.where(right, -lower, upper)
    log_low, log_high = special.log_ndtr(low), special.log_ndtr(high)
    with np.errstate(invalid="ignore", divide="ignore"):
        return log_high + np.log(-np.expm1(log_low - log_high))


@functools.partial(jax.jit, static_argnums=0)
def every_log_prob(likelihood, outputs):
    """Log-probabilities [N, 256] of all values, and of each the slopes [N, 256, P]."""
    repeated = jnp.broadcast_to(
        outputs[:, None, None, :], (len(outputs), 1, 256, outputs.shape[-1])
    )
    images = jnp.broadcast_to(EVERY_VALUE, (len(outputs), 1, 256, 1))

    def total(repeated):
        logs = likelihood.log_prob(repeated, images)
        return logs.sum(), logs[:, 0, :, 0]

    slopes, logs = jax.grad(total, has_aux=True)(repeated)
    return logs, slopes[:, 0]


@functools.partial(jax.jit, static_argnums=0)
def twenty_thousand(likelihood, key, output):
    outputs = jnp.broadcast_to(output, (1, 100, 200, output.shape[-1]))
    return likelihood.sample(key, outputs)


@pytest.mark.parametrize(
    ("likelihood", "outputs"),
    [(CATEGORICAL, categorical_outputs()), (GAUSSIAN, gaussian_outputs())],
    ids=["categorical", "gaussian"],
)
def test_sums_to_one_with_finite_gradients(likelihood, outputs):
    """[13] Whatever the decoder puts out, it is a distribution over 256 values."""
    assert likelihood.is_discrete
    logs, slopes = jax.device_get(every_log_prob(likelihood, outputs))
    assert np.isfinite(logs).all()
    assert np.isfinite(slopes).all()
    assert logs.max() <= 1e-6
    np.testing.assert_allclose(np.exp(np.float64(logs)).sum(-1), 1, atol=1e-5)


class TestCategorical:
    def test_log_prob_and_gradient_equal_numpy(self):
        logits = categorical_outputs()
        expected = special.log_softmax(np.float64(logits), axis=-1)
        ours, slopes = every_log_prob(CATEGORICAL, jnp.asarray(logits))
        np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=1e-5)
        probs = special.softmax(np.float64(logits), axis=-1)
        expected = np.eye(256)[None] - probs[:, None, :]
        np.testing.assert_allclose(slopes, expected, atol=1e-5)

    def test_each_channel_reads_its_own_outputs(self):
        rng = np.random.default_rng(1)
        logits = rng.normal(size=(2, 3, 4, 3, 256)).astype(np.float32)
        images = rng.integers(256, size=(2, 3, 4, 3)).astype(np.uint8)
        expected = np.zeros(images.shape)
        for place in np.ndindex(images.shape):
            expected[place] = np.log(special.softmax(logits[place]))[images[place]]
        outputs = jnp.asarray(logits.reshape(2, 3, 4, -1))
        ours = CATEGORICAL.log_prob(outputs, jnp.asarray(images))
        np.testing.assert_allclose(ours, expected, rtol=1e-5)
        mean = (special.softmax(np.float64(logits), axis=-1) * np.arange(256)).sum(-1)
        np.testing.assert_allclose(CATEGORICAL.mean(outputs), mean, rtol=1e-5)

    def test_samples_come_as_often_as_they_should(self):
        logits = np.full(256, -1e9, np.float32)
        values, p = np.array([0, 3, 200, 255]), np.array([0.1, 0.2, 0.3, 0.4])
        logits[values] = np.log(p)
        draws = twenty_thousand(CATEGORICAL, jax.random.key(0), logits)
        assert (draws.dtype, draws.shape) == (jnp.uint8, (1, 100, 200, 1))
        counts = np.bincount(np.asarray(draws).ravel(), minlength=256)
        assert counts.sum() == counts[values].sum()
        assert stats.chisquare(counts[values], 20_000 * p).pvalue > 1e-3


class TestDiscretizedGaussian:
    def test_log_prob_and_gradient_equal_scipy(self):
        """Far in the tails too, where logarithms grow as squares."""
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
        # Beyond their range neither pulls any more, but the other one does.
        assert not np.any(slopes[~inside, :, 0])
        assert not np.any(slopes[np.abs(log_scale) > 6, :, 1])

    def test_mean_is_on_the_scale_of_the_values(self):
        means = np.array([-3.0, -1.0, -0.2, 0.0, 1.0, 2.0], np.float32)
        outputs = np.stack([means, np.zeros(6, np.float32)], axis=-1)
        ours = GAUSSIAN.mean(jnp.asarray(outputs.reshape(1, 1, 6, 2)))
        expected = np.clip((means + 1) * 127.5, 0, 255).reshape(1, 1, 6, 1)
        np.testing.assert_allclose(ours, expected, rtol=1e-6)

    @pytest.mark.parametrize("mean", [0.1, -1.0, 3.0])
    def test_samples_come_as_often_as_they_should(self, mean):
        log_scale = -2.5
        output = jnp.array([mean, log_scale])
        draws = twenty_thousand(GAUSSIAN, jax.random.key(1), output)
        assert (draws.dtype, draws.shape) == (jnp.uint8, (1, 100, 200, 1))
        counts = np.bincount(np.asarray(draws).ravel(), minlength=256)
        expected = 20_000 * np.exp(interval(np.float64(mean), np.float64(log_scale)))
        # Values with fewer than 5 expected draws are tested as one.
        often = expected >= 5
        counts = np.append(counts[often], counts[~often].sum())
        expected = np.append(expected[often], expected[~often].sum())
        if expected[-1] < 1e-6:
            assert counts[-1] == 0
            counts, expected = counts[:-1], expected[:-1]
        assert len(counts) == 1 or stats.chisquare(counts, expected).pvalue > 1e-3


class TestMeanSquaredError:
    def test_is_no_distribution_over_values(self):
        """[13] So that no bits/dim are ever made of it."""
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


def test_by_name():
    assert likelihoods.by_name("categorical") == CATEGORICAL
    assert likelihoods.by_name("gaussian") == GAUSSIAN
    assert likelihoods.by_name("mse") == MSE
    with pytest.raises(UserError, match=r"'cosine'.*categorical, gaussian, mse"):
        likelihoods.by_name("cosine")


@pytest.mark.parametrize(
    ("likelihood", "channels"), [(CATEGORICAL, 300), (GAUSSIAN, 3)]
)
def test_channels_that_do_not_divide(likelihood, channels):
    outputs = jnp.zeros((1, 2, 2, channels))
    images = jnp.zeros((1, 2, 2, 1), jnp.uint8)
    with pytest.raises(UserError, match=rf"multiple of .* {likelihood.num_outputs} "):
        likelihood.log_prob(outputs, images)


def test_scaled_spans_minus_one_to_one():
    ours = likelihoods.scaled(jnp.array([0.0, 127.5, 255.0]))
    np.testing.assert_allclose(ours, [-1, 0, 1], atol=1e-7)
