"""Queued sampling against naive ancestral sampling and enumeration."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from vqvae_jax.sampling import truncated
from vqvae_jax.tasks.speech import queued_sampling
from vqvae_jax.tasks.speech.wavenet import SequenceCondition, WaveNet

KEY = jax.random.key(7)


def build(batch, length, **options):
    sizes = {
        "num_values": 6,
        "stacks": 2,
        "layers": 3,
        "channels": 4,
        "skip_channels": 16,
    }
    network = WaveNet(**(sizes | options))
    rng = np.random.default_rng(0)
    labels = jnp.arange(batch) % 2 if network.num_classes else None
    features = None
    if network.feature_channels:
        count = -(-length // network.steps_per_feature)
        features = rng.normal(size=(batch, count, network.feature_channels))
        features = jnp.asarray(features, jnp.float32)
    condition = SequenceCondition(labels, features)
    values = jnp.zeros((batch, length), jnp.int32)
    shapes = jax.eval_shape(network.init, KEY, values, condition)

    def draw(leaf):
        scale = 1.3 / np.sqrt(leaf.shape[0])
        return jnp.asarray(scale * rng.normal(size=leaf.shape), jnp.float32)

    params = jax.tree.map(draw, shapes)
    return network, params, condition


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_classes": 2},
        {"num_classes": 2, "feature_channels": 3, "steps_per_feature": 4},
    ],
)
# The last feature covers one step of four, so the keys of the others are padding.
@pytest.mark.parametrize("make_key", [jax.random.key, jax.random.PRNGKey])
def test_queued_samples_equal_ancestral_samples(options, make_key):
    shape = (3, 21)
    network, params, condition = build(*shape, **options)

    def adjust(logits):
        return truncated(logits, temperature=1.2)

    @jax.jit
    def both(key):
        ours = queued_sampling.queued(
            network, params, key, shape=shape, condition=condition, adjust=adjust
        )
        naive = queued_sampling.ancestral(
            lambda values: network.apply(params, values, condition),
            key,
            shape=shape,
            adjust=adjust,
        )
        return ours, naive

    for key in jax.random.split(make_key(0), 3):
        ours, naive = both(key)
        np.testing.assert_array_equal(ours, naive)
    assert len(np.unique(ours)) > 3


def test_frequencies_match_the_models_probabilities():
    """All 27 sequences of three values, over 20 000 samples."""
    network, params, _ = build(1, 3, num_values=3, layers=2, stacks=1)
    every = np.array(list(itertools.product(range(3), repeat=3)))
    logits = np.float64(jax.jit(network.apply)(params, jnp.asarray(every, jnp.int32)))
    log_p = np.take_along_axis(
        special.log_softmax(logits, axis=-1), every[..., None], axis=-1
    ).sum(axis=(1, 2))
    assert np.exp(log_p).sum() == pytest.approx(1, abs=1e-5)
    draw = jax.jit(
        lambda key: queued_sampling.queued(network, params, key, shape=(20_000, 3))
    )
    drawn = np.asarray(draw(KEY)) @ [9, 3, 1]
    counts = np.bincount(drawn, minlength=27)
    expected = 20_000 * np.exp(log_p)
    frequent = expected > 5
    observed = np.append(counts[frequent], counts[~frequent].sum())
    expected = np.append(expected[frequent], expected[~frequent].sum())
    keep = expected > 5
    observed, expected = observed[keep], expected[keep]
    expected *= observed.sum() / expected.sum()
    assert stats.chisquare(observed, expected).pvalue > 1e-3


def test_given_values_are_kept_and_condition_later_ones():
    network, params, _ = build(2, 12)
    given = np.full((2, 12), -1)
    given[:, :5] = [[0, 1, 2, 3, 4], [5, 4, 3, 2, 1]]
    given[0, 9] = 3

    @jax.jit
    def draw(given):
        return queued_sampling.queued(network, params, KEY, shape=(2, 12), given=given)

    drawn = np.asarray(draw(jnp.asarray(given)))
    kept = given >= 0
    np.testing.assert_array_equal(drawn[kept], given[kept])
    other = given.copy()
    other[:, :5] = (other[:, :5] + 1) % 6
    assert (np.asarray(draw(jnp.asarray(other)))[:, 5:] != drawn[:, 5:]).any()
