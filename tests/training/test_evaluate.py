"""Evaluation over a whole set on eight devices, compared with NumPy."""

import jax
import numpy as np
import pytest
from line_runs import Line, Points

from vqvae_jax import metrics
from vqvae_jax.data.batches import eval_batches
from vqvae_jax.training import sharding
from vqvae_jax.training.loop import make_evaluation

EXAMPLES, BATCH, CODES = 1003, 64, 11


@pytest.fixture(scope="module")
def model():
    class Coded(Line):
        """Also counts a code per example; it is 0 for padding, where x is 0."""

        def evaluate(self, params, batch):
            codes = self.codes(batch["x"])[:, None]
            usage = metrics.code_usage(codes, num_codes=CODES, mask=batch["mask"])
            return super().evaluate(params, batch) | {"usage": usage}

        @staticmethod
        def codes(x):
            return (abs(x[:, 0]) * 4).astype("int32") % CODES

    return Coded()


@pytest.fixture(scope="module")
def evaluation(model, mesh):
    return make_evaluation(model.evaluate, mesh)


@pytest.fixture(scope="module")
def params(mesh):
    values = {"w": np.array([0.4, 0.2], "f4"), "seen": np.zeros((), "f4")}
    return jax.device_put(values, sharding.replicated(mesh))


def test_every_example_counts_once(model, evaluation, params):
    """[21] Batches of 64; the last has 43 examples. [24] Parameters do not change."""
    source = Points(EXAMPLES)
    before = jax.device_get(params)
    sums = evaluation(params, eval_batches(source, batch_size=BATCH))

    error = (source.x.astype("f8") @ np.array([0.4, 0.2]) - source.y) ** 2
    assert sums["loss"].weight == EXAMPLES
    assert metrics.compute(sums)["loss"] == pytest.approx(error.mean(), rel=1e-6)
    counts = np.bincount(model.codes(source.x), minlength=CODES)
    np.testing.assert_array_equal(sums["usage"].counts, counts[None])
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(params), before)
    assert not any(x.is_deleted() for x in jax.tree.leaves(params))


def test_masked_examples_are_ignored(evaluation, params):
    (batch,) = eval_batches(Points(50), batch_size=BATCH)
    filled = {**batch, "y": np.where(batch["mask"], batch["y"], np.nan)}
    zeros, nans = (evaluation(params, [b]) for b in (batch, filled))
    jax.tree.map(np.testing.assert_array_equal, zeros, nans)


def test_no_batches_give_no_metrics(evaluation, params):
    assert evaluation(params, []) == {}
