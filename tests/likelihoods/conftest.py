"""What the tests of all likelihoods do: every value's log-probability, many draws."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

# Every value once, as the columns of an image.
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
def twenty_thousand(likelihood, key, output):
    outputs = jnp.broadcast_to(output, (1, 100, 200, output.shape[-1]))
    return likelihood.sample(key, outputs)


@pytest.fixture
def every_log_prob():
    """Outputs [N, P] to log p of the 256 values [N, 256], and slopes [N, 256, P]."""
    return lambda *args: jax.device_get(log_probs_and_slopes(*args))


@pytest.fixture
def assert_is_a_distribution(every_log_prob):
    """Check that all 256 probabilities are there, sum to 1 and have slopes."""

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
    """Check 20 000 draws against the 256 probabilities."""

    def check(likelihood, output, probs):
        draws = twenty_thousand(likelihood, jax.random.key(1), jnp.asarray(output))
        assert (draws.dtype, draws.shape) == (jnp.uint8, (1, 100, 200, 1))
        counts = np.bincount(np.asarray(draws).ravel(), minlength=256)
        expected = 20_000 * np.float64(probs)
        # Values with fewer than 5 expected draws are tested as one.
        often = expected >= 5
        counts = np.append(counts[often], counts[~often].sum())
        expected = np.append(expected[often], expected[~often].sum())
        if expected[-1] < 1e-6:
            assert counts[-1] == 0
            counts, expected = counts[:-1], expected[:-1]
        expected *= counts.sum() / expected.sum()
        assert len(counts) == 1 or stats.chisquare(counts, expected).pvalue > 1e-3

    return check
