"""The discretized logistic mixture against SciPy and enumeration.

Numbers in brackets are rows of the list of known defects in docs/conformance.md.
"""

import functools
import itertools

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
from vqvae_jax.runtime.errors import UserError

SINGLE = likelihoods.LogisticMixture(components=1)
MIXTURE = likelihoods.LogisticMixture(components=3)

MEANS = (-1e6, -101.0, -30.0, -2.0, -1.0, 0.0, 0.3, 1.0, 1.004, 5.0, 30.0, 1e5)
LOG_SCALES = (-100.0, -7.0, -3.0, 0.0, 3.0, 50.0)


def single_outputs():
    """Return logit, mean and log-scale inside, at the edges and far outside."""
    grid = [(9.0, *pair) for pair in itertools.product(MEANS, LOG_SCALES)]
    return np.array(grid, np.float32)


def mixture_outputs():
    """Return moderate and extreme random outputs, some with an unused component."""
    rng = np.random.default_rng(0)
    outputs = rng.normal(size=(30, 9)) * [[1.0] * 3 + [0.8] * 3 + [1.5] * 3]
    outputs[:, 6:] -= 2
    outputs[10:20, :3] *= 1e3
    outputs[15:20, 3:6] *= 1e3
    outputs[20:25, 6:] *= 20
    outputs[25:, 0] = -1e9
    return np.array(outputs, np.float32)


def parameters(outputs, likelihood):
    """Return log pi, mean and scale [N, M] in float64, in units of the values."""
    logits, mean, log_scale = np.split(np.float64(outputs), 3, axis=-1)
    count = likelihood.components
    mean = mean + (2 * np.arange(1, count + 1) / (count + 1) - 1)
    mean = np.clip(mean, *likelihood.mean_range)
    log_scale = np.clip(log_scale, *likelihood.log_scale_range)
    log_pi = special.log_softmax(logits, axis=-1)
    return log_pi, (mean + 1) * 127.5, 127.5 * np.exp(log_scale)


def log_probs(outputs, likelihood):
    """Return the 256 log-probabilities [N, 256] from differences of log F."""
    log_pi, mean, scale = parameters(outputs, likelihood)
    edges = (np.arange(257) - 0.5 - mean[..., None]) / scale[..., None]
    log_p = log_of_bins(special.log_expit, edges)
    return special.logsumexp(log_pi[..., None] + log_p, axis=-2)


CASES = pytest.mark.parametrize(
    ("likelihood", "outputs"),
    [(SINGLE, single_outputs()), (MIXTURE, mixture_outputs())],
    ids=["single", "mixture"],
)


@CASES
def test_sums_to_one_with_finite_gradients(likelihood, outputs):
    """[13] Any decoder output gives a distribution over 256 values."""
    assert_is_a_distribution(likelihood, outputs)


@CASES
def test_log_prob_equals_scipy(likelihood, outputs):
    """Includes the far tails."""
    ours, _ = every_log_prob(likelihood, outputs)
    expected = log_probs(outputs, likelihood)
    np.testing.assert_allclose(ours, expected, rtol=2e-5, atol=1e-4)


def test_gradient_equals_finite_differences():
    outputs = mixture_outputs()[:15]
    _, slopes = every_log_prob(MIXTURE, outputs)
    for index in range(9):
        step = np.zeros(9)
        step[index] = 1e-6
        ahead, behind = (
            log_probs(np.float64(outputs) + sign * step, MIXTURE) for sign in (1, -1)
        )
        expected = (ahead - behind) / 2e-6
        np.testing.assert_allclose(slopes[..., index], expected, rtol=2e-3, atol=2e-3)


def test_clipped_parameters_have_no_gradient():
    _, slopes = every_log_prob(SINGLE, single_outputs())
    _, mean, log_scale = single_outputs().T
    assert not np.any(slopes[np.abs(mean) > 100, :, 1])
    outside = (log_scale > 3) | (log_scale < -7)
    assert not np.any(slopes[outside, :, 2])
    assert np.all(slopes[(np.abs(mean) < 100) & ~outside, 100, 1:])
    # The logit of a single component has no effect.
    assert not np.any(slopes[..., 0])


def test_mean_is_the_expected_value():
    """The mixture is not rounded, so means are up to 0.5 off for small scales."""
    outputs = mixture_outputs()
    ours = jax.jit(MIXTURE.mean)(outputs[None, None])[0, 0, :, 0]
    expected = np.exp(log_probs(outputs, MIXTURE)) @ np.arange(256)
    np.testing.assert_allclose(ours, expected, atol=0.51)
    scales = parameters(outputs, MIXTURE)[2].min(axis=-1)
    assert (scales > 1).any()
    np.testing.assert_allclose(ours[scales > 1], expected[scales > 1], atol=0.02)


def test_each_channel_reads_its_own_outputs():
    rng = np.random.default_rng(1)
    outputs = rng.normal(size=(2, 3, 4, 3, 9)).astype(np.float32)
    images = rng.integers(256, size=(2, 3, 4, 3)).astype(np.uint8)
    every = log_probs(outputs.reshape(-1, 9), MIXTURE)
    expected = every[np.arange(len(every)), images.ravel()].reshape(images.shape)
    ours = jax.jit(MIXTURE.log_prob)(
        jnp.asarray(outputs.reshape(2, 3, 4, -1)), jnp.asarray(images)
    )
    np.testing.assert_allclose(ours, expected, rtol=1e-4)


@pytest.mark.parametrize("output", [0, 1, 27])
def test_sample_frequencies_match_the_probabilities(output):
    outputs = mixture_outputs()[output]
    probs = np.exp(log_probs(outputs[None], MIXTURE)[0])
    assert_draws_follow(MIXTURE, outputs, probs)


def test_zero_outputs_give_components_different_gradients():
    """Otherwise all components would stay equal in training."""
    slopes = jax.jit(jax.grad(functools.partial(first_log_prob, MIXTURE)))(
        jnp.zeros((1, 1, 1, 9))
    )
    means = np.asarray(slopes)[0, 0, 0, 3:6]
    assert np.ptp(means) > 0.1


def first_log_prob(likelihood, outputs):
    return likelihood.log_prob(outputs, jnp.full((1, 1, 1, 1), 90, jnp.uint8)).sum()


def test_zero_components_are_rejected():
    with pytest.raises(UserError, match="components must be at least 1, got 0"):
        likelihoods.LogisticMixture(components=0)
