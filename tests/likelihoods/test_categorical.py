"""The 256-way softmax against SciPy and enumeration.

Numbers in brackets are rows of the list of known defects in docs/conformance.md.
"""

import jax
import jax.numpy as jnp
import numpy as np
from likelihood_checks import (
    assert_draws_follow,
    assert_is_a_distribution,
    every_log_prob,
)
from scipy import special

from vqvae_jax import likelihoods

CATEGORICAL = likelihoods.Categorical()


def categorical_outputs():
    """Return logits of 6 pixels: random, sharp, far from 0, and uniform."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(6, 256))
    logits[1] *= 30
    logits[2] *= 1e4
    logits[3] += 1e6
    logits[4, 7] = -1e9
    logits[5] = 0
    return jnp.asarray(logits, "float32")


def test_sums_to_one_with_finite_gradients():
    """[13] Any decoder output gives a distribution over 256 values."""
    assert_is_a_distribution(CATEGORICAL, categorical_outputs())


def test_log_prob_and_gradient_equal_numpy():
    logits = np.float64(categorical_outputs())
    expected = special.log_softmax(logits, axis=-1)
    ours, slopes = every_log_prob(CATEGORICAL, categorical_outputs())
    np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=1e-5)
    probs = special.softmax(logits, axis=-1)
    expected = np.eye(256)[None] - probs[:, None, :]
    np.testing.assert_allclose(slopes, expected, atol=1e-5)


def test_each_channel_reads_its_own_outputs():
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(2, 3, 4, 3, 256)).astype(np.float32)
    images = rng.integers(256, size=(2, 3, 4, 3)).astype(np.uint8)
    expected = np.zeros(images.shape)
    for index in np.ndindex(images.shape):
        expected[index] = np.log(special.softmax(logits[index]))[images[index]]
    outputs = jnp.asarray(logits.reshape(2, 3, 4, -1))
    ours = jax.jit(CATEGORICAL.log_prob)(outputs, jnp.asarray(images))
    np.testing.assert_allclose(ours, expected, rtol=1e-5)
    mean = (special.softmax(np.float64(logits), axis=-1) * np.arange(256)).sum(-1)
    np.testing.assert_allclose(jax.jit(CATEGORICAL.mean)(outputs), mean, rtol=1e-5)


def test_sample_frequencies_match_the_probabilities():
    probs = np.zeros(256)
    probs[[0, 3, 200, 255]] = 0.1, 0.2, 0.3, 0.4
    logits = np.full(256, -1e9, np.float32)
    logits[probs > 0] = np.log(probs[probs > 0])
    assert_draws_follow(CATEGORICAL, logits, probs)
