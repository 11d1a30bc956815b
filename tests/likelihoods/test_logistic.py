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
    log_scale = np.clip(log_scale - 2, *likelihood.log_scale_range)
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
    outside = (log_scale - 2 > 3) | (log_scale - 2 < -7)
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


@pytest.mark.parametrize(
    "mixture", [likelihoods.LogisticMixture, likelihoods.CoupledLogisticMixture]
)
def test_zero_components_are_rejected(mixture):
    with pytest.raises(UserError, match="components must be at least 1, got 0"):
        mixture(components=0)


COUPLED = likelihoods.CoupledLogisticMixture(components=2)


def coupled_outputs(count=12):
    """Return outputs [N, 20] of two components: moderate, sharp, far off and unused."""
    rng = np.random.default_rng(2)
    outputs = rng.normal(size=(count, 20)) * 0.8
    outputs[4:6, 8:14] -= 20
    outputs[6:8, 2:8] *= 30
    outputs[8:10, 14:] *= 50
    outputs[10:, 0] = -1e9
    return np.array(outputs, np.float32)


def coupled_log_probs(outputs, pixels):
    """Return log p of RGB pixels [N, 3] given outputs [N, 20], in float64."""
    outputs, x = np.float64(outputs), np.float64(pixels) / 127.5 - 1
    each = outputs.reshape(len(outputs), 10, 2)
    log_pi = special.log_softmax(each[:, 0], axis=-1)
    mean = each[:, 1:4] + [-1 / 3, 1 / 3]
    log_scale = np.clip(each[:, 4:7] - 2, -7, 3)
    a, b, c = np.tanh(each[:, 7:]).transpose(1, 0, 2)
    red, green = x[:, 0, None], x[:, 1, None]
    mean[:, 1] += a * red
    mean[:, 2] += b * red + c * green
    # F at both ends of each bin, through log F for the tails.
    scale = 127.5 * np.exp(log_scale)
    edges = np.float64(pixels)[..., None] + [-0.5, 0.5]
    edges = np.where(edges < 0, -np.inf, np.where(edges > 255, np.inf, edges))
    edges = (edges[:, :, None] - (127.5 * (mean + 1))[..., None]) / scale[..., None]
    lower, upper = edges[..., 0], edges[..., 1]
    right = lower > 0
    low, high = np.where(right, -upper, lower), np.where(right, -lower, upper)
    log_low, log_high = special.log_expit(low), special.log_expit(high)
    log_p = log_high + np.log(-np.expm1(log_low - log_high))
    return special.logsumexp(log_pi + log_p.sum(axis=1), axis=-1)


def as_row(values):
    return jnp.asarray(values)[None, None]


@functools.partial(jax.jit, static_argnums=0)
def log_probs_of_every_triple(likelihood, output):
    """Return the sum of the probabilities of all 256^3 pixels."""
    values = jnp.arange(256, dtype=jnp.uint8)
    green, blue = jnp.meshgrid(values, values, indexing="ij")

    def of_red(red):
        image = jnp.stack([jnp.full_like(green, red), green, blue], axis=-1)[None]
        outputs = jnp.broadcast_to(output, (1, 256, 256, output.shape[-1]))
        return jnp.exp(likelihood.log_prob(outputs, image).sum(axis=-1)).sum()

    return jax.lax.map(of_red, values).sum()


@pytest.mark.parametrize("row", [0, 4, 8])
def test_probabilities_of_all_rgb_triples_sum_to_one(row):
    total = log_probs_of_every_triple(COUPLED, jnp.asarray(coupled_outputs()[row]))
    np.testing.assert_allclose(total, 1, atol=1e-4)


def test_coupled_log_prob_equals_scipy():
    rng = np.random.default_rng(3)
    outputs = np.repeat(coupled_outputs(), 50, axis=0)
    pixels = rng.integers(256, size=(600, 3), dtype=np.uint8)
    pixels[::5, 0], pixels[1::5, 1], pixels[2::5, 2] = 0, 255, 0
    ours = jax.jit(COUPLED.log_prob)(as_row(outputs), as_row(pixels))[0, 0]
    expected = coupled_log_probs(outputs, pixels)
    np.testing.assert_allclose(ours.sum(axis=-1), expected, rtol=2e-5, atol=2e-4)
    # The first channel alone is a mixture of its own.
    single = np.delete(outputs.reshape(-1, 10, 2), np.s_[2:4], axis=1)[:, [0, 1, 2]]
    single[:, 2] = outputs.reshape(-1, 10, 2)[:, 4]
    mixture = likelihoods.LogisticMixture(components=2)
    of_red = log_probs(single.reshape(-1, 6), mixture)
    expected = np.take_along_axis(of_red, pixels[:, :1].astype(int), axis=-1)[:, 0]
    np.testing.assert_allclose(ours[:, 0], expected, rtol=2e-5, atol=2e-4)


def test_coupled_gradient_is_finite_and_equals_finite_differences():
    outputs = np.repeat(coupled_outputs(), 4, axis=0)
    pixels = np.tile(
        np.array([[0, 0, 0], [255, 255, 255], [0, 255, 7], [90, 120, 200]], np.uint8),
        (len(coupled_outputs()), 1),
    )

    def total(outputs):
        return COUPLED.log_prob(outputs, as_row(pixels)).sum()

    slopes = np.asarray(jax.jit(jax.grad(total))(as_row(outputs)))[0, 0]
    assert np.isfinite(slopes).all()
    moderate = slice(0, 16)
    for index in range(20):
        step = np.zeros(20)
        step[index] = 1e-6
        ahead, behind = (
            coupled_log_probs(np.float64(outputs) + sign * step, pixels)
            for sign in (1, -1)
        )
        expected = ((ahead - behind) / 2e-6)[moderate]
        np.testing.assert_allclose(
            slopes[moderate, index], expected, rtol=2e-3, atol=2e-3
        )


def coupled_draws(rng, output, count):
    """Draw RGB pixels [N, 3] in float64, by the inverse CDF of each logistic."""
    each = np.float64(output).reshape(10, 2)
    component = (rng.random(count) > special.softmax(each[0])[0]).astype(int)
    mean = (each[1:4] + np.array([-1 / 3, 1 / 3]))[:, component]
    scale = np.exp(np.clip(each[4:7] - 2, -7, 3))[:, component]
    a, b, c = np.tanh(each[7:])[:, component]

    def drawn(channel, shift):
        noise = special.logit(rng.random(count))
        value = mean[channel] + shift + scale[channel] * noise
        return np.clip(np.round(127.5 * (value + 1)), 0, 255)

    red = drawn(0, 0)
    green = drawn(1, a * (red / 127.5 - 1))
    blue = drawn(2, b * (red / 127.5 - 1) + c * (green / 127.5 - 1))
    return np.stack([red, green, blue], axis=-1)


@pytest.mark.parametrize("row", [0, 1, 2])
def test_coupled_samples_have_the_moments_of_an_inverse_cdf(row):
    output = coupled_outputs()[row]
    outputs = jnp.broadcast_to(output, (1, 200, 200, 20))
    draws = jax.jit(COUPLED.sample)(jax.random.key(0), outputs)
    assert draws.dtype == jnp.uint8
    draws = np.float64(draws).reshape(-1, 3)
    expected = coupled_draws(np.random.default_rng(5), output, len(draws))
    # Six standard errors of the difference of two means.
    error = 6 * np.sqrt(2 * expected.var(axis=0) / len(draws))
    assert (np.abs(draws.mean(axis=0) - expected.mean(axis=0)) < error).all()
    np.testing.assert_allclose(np.corrcoef(draws.T), np.corrcoef(expected.T), atol=0.05)
    np.testing.assert_allclose(draws.std(axis=0), expected.std(axis=0), rtol=0.05)


def test_coupled_mean_shifts_with_the_channels_before():
    """Without a spread, the mean is a chain of linear maps."""
    output = np.zeros((10, 1), np.float32)
    output[1:4, 0] = [0.4, -0.2, 0.1]
    output[4:7] = -7
    output[7:, 0] = np.arctanh([0.5, -0.25, 0.8])
    single = likelihoods.CoupledLogisticMixture(components=1)
    red, green = 0.4, -0.2 + 0.5 * 0.4
    blue = 0.1 - 0.25 * red + 0.8 * green
    expected = (np.array([red, green, blue]) + 1) * 127.5
    means = jax.jit(single.mean)(as_row(output.reshape(1, 10)))[0, 0, 0]
    np.testing.assert_allclose(means, expected, atol=0.01)


def test_a_grey_coupled_mixture_is_a_mixture_per_channel():
    rng = np.random.default_rng(4)
    outputs = rng.normal(size=(1, 2, 3, 9)).astype(np.float32)
    images = rng.integers(256, size=(1, 2, 3, 1), dtype=np.uint8)
    coupled = likelihoods.CoupledLogisticMixture(components=3)
    args = (jnp.asarray(outputs), jnp.asarray(images))
    np.testing.assert_allclose(
        coupled.log_prob(*args), MIXTURE.log_prob(*args), rtol=1e-5
    )
    np.testing.assert_allclose(coupled.mean(args[0]), MIXTURE.mean(args[0]), rtol=1e-5)
    assert coupled.sample(jax.random.key(0), args[0]).shape == images.shape


def test_coupled_outputs_of_another_width_are_rejected():
    with pytest.raises(UserError, match=r"must have 6 channels .* or 20 for an RGB"):
        COUPLED.mean(jnp.zeros((1, 1, 1, 21)))
