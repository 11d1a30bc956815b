"""Fixtures of all likelihoods: log-probabilities of all values, and many samples."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

# All values once, as the columns of an image.
EVERY_VALUE = np.arange(256, dtype=np.uint8).reshape(1, 1, 256, 1)


@functools.partial(jax.jit, static_argnums=0)
def log_probs_and_slopes(likelihood, outputs):
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
def sample_20_000(likelihood, key, output):
    outputs = jnp.broadcast_to(output, (1, 100, 200, output.shape[-1]))
    return likelihood.sample(key, outputs)


@pytest.fixture
def every_log_prob():
    """Return a function that evaluates a likelihood at all 256 values.

    It maps outputs [N, P] to log p [N, 256] and gradients [N, 256, P].
    """
    return lambda *args: jax.device_get(log_probs_and_slopes(*args))


@pytest.fixture
def assert_is_a_distribution(every_log_prob):
    """Check that the 256 probabilities sum to 1, with finite logs and gradients."""

    def check(likelihood, outputs):
        assert likelihood.is_discrete
        logs, slopes = every_log_prob(likelihood, outputs)
        assert np.isfinite(logs).all()
        assert np.isfinite(slopes).all()
        assert logs.max() <= 1e-6
        np.testing.assert_allclose(np.exp(np.float64(logs)).sum(-1), 1, atol=1e-5)

    return check


@pytest.fixture
def assert_draws_follow():
    """Check 20 000 samples against the 256 probabilities."""

    def check(likelihood, output, probs):
        draws = sample_20_000(likelihood, jax.random.key(1), jnp.asarray(output))
        assert (draws.dtype, draws.shape) == (jnp.uint8, (1, 100, 200, 1))
        counts = np.bincount(np.asarray(draws).ravel(), minlength=256)
        expected = 20_000 * np.float64(probs)
        # Test values with fewer than 5 expected samples as one.
        often = expected >= 5
        counts = np.append(counts[often], counts[~often].sum())
        expected = np.append(expected[often], expected[~often].sum())
        if expected[-1] < 1e-6:
            assert counts[-1] == 0
            counts, expected = counts[:-1], expected[:-1]
        expected *= counts.sum() / expected.sum()
        assert len(counts) == 1 or stats.chisquare(counts, expected).pvalue > 1e-3

    return check
