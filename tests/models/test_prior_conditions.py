"""A prior with what it depends on: withheld labels, guidance, a vector and a map."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from vqvae_jax import metrics
from vqvae_jax.models.prior import Prior
from vqvae_jax.runtime.errors import UserError

GRID, K = (2, 1, 2), 3
SIZES = {"num_codes": K, "layers": 1, "units": 8, "kernel_size": 3}
EVERY_GRID = np.array(list(itertools.product(range(K), repeat=math.prod(GRID))))
BATCH = {
    "codes": jnp.zeros((2, *GRID), jnp.int32),
    "label": jnp.zeros(2, jnp.int32),
    "mask": jnp.ones(2, bool),
    "vector": jnp.ones((2, 2)),
    "features": jnp.ones((2, *GRID[:2], 3)),
}


def random_params(prior, names=("codes", "label")):
    """Random arrays of the right shapes: `init` would take seconds to compile."""
    rng = np.random.default_rng(0)
    batch = {name: BATCH[name] for name in names}
    shapes = jax.eval_shape(prior.init, jax.random.key(0), batch)
    return jax.tree.map(
        lambda leaf: jnp.asarray(0.5 * rng.normal(size=leaf.shape), "float32"), shapes
    )


class TestLabelDropout:
    PRIOR = Prior(grid=GRID, class_names=("a", "b"), label_dropout=0.3, **SIZES)

    @pytest.fixture(scope="class")
    @classmethod
    def params(cls):
        return random_params(cls.PRIOR)

    def test_without_labels_a_class_of_its_own(self, params):
        """With it the probabilities sum to 1, and are none of the two classes'."""
        codes = jnp.asarray(EVERY_GRID.reshape(-1, *GRID), "int32")
        without = np.asarray(self.PRIOR.log_prob(params, codes))
        assert np.exp(without).sum() == pytest.approx(1, rel=1e-5)
        for label in range(2):
            labels = jnp.full(len(EVERY_GRID), label)
            given = np.asarray(self.PRIOR.log_prob(params, codes, labels=labels))
            assert np.abs(given - without).max() > 0.1

    def test_the_loss_withholds_this_part_of_the_labels(self, params):
        """Its mean over keys is the mixture of both losses."""
        batch = {
            "codes": jnp.asarray(EVERY_GRID[:1].reshape(1, *GRID), "int32"),
            "label": jnp.array([1]),
            "mask": jnp.array([True]),
        }
        keys = jax.random.split(jax.random.key(0), 1000)
        loss = jax.jit(jax.vmap(lambda key: self.PRIOR.loss(params, key, batch)[0]))
        losses = np.asarray(loss(keys))
        codes, labels = batch["codes"], batch["label"]
        given = -float(self.PRIOR.log_prob(params, codes, labels=labels)[0]) / 4
        without = -float(self.PRIOR.log_prob(params, codes)[0]) / 4
        is_given = np.isclose(losses, given, rtol=1e-4)
        assert np.all(is_given | np.isclose(losses, without, rtol=1e-4))
        assert 0.25 < 1 - is_given.mean() < 0.35
        bits = metrics.compute(self.PRIOR.evaluate(params, batch))["bits_per_code"]
        assert bits == pytest.approx(given / math.log(2), rel=1e-4)

    @pytest.mark.parametrize("guidance", [0.0, 1.0, 2.5])
    def test_guidance_weighs_both_distributions(self, params, guidance):
        """The first code's frequencies are p(label)^g p()^(1 - g), normalised."""
        draws = 10_000
        labels = np.ones(draws, int)
        codes = self.PRIOR.sample(
            params, jax.random.key(0), labels=labels, guidance=guidance
        )
        grids = jnp.asarray(EVERY_GRID.reshape(-1, *GRID), "int32")
        ones = jnp.ones(len(EVERY_GRID), jnp.int32)
        first = [
            np.exp(np.float64(log_p)).reshape(K, -1).sum(axis=1)
            for log_p in (
                self.PRIOR.log_prob(params, grids, labels=ones),
                self.PRIOR.log_prob(params, grids),
            )
        ]
        p = first[0] ** guidance * first[1] ** (1 - guidance)
        seen = np.bincount(np.asarray(codes)[:, 0, 0, 0], minlength=K)
        assert stats.chisquare(seen, draws * p / p.sum()).pvalue > 1e-3


def test_a_vector_and_a_map_condition_every_method():
    prior = Prior(grid=GRID, vector_features=2, map_features=3, **SIZES)
    batch = BATCH
    params = random_params(prior, tuple(BATCH))
    both = {name: batch[name] for name in ("vector", "features")}
    log_p = prior.log_prob(params, batch["codes"], **both)
    loss, _ = prior.loss(params, jax.random.key(0), batch)
    np.testing.assert_allclose(loss, -log_p.mean() / 4, rtol=1e-5)
    for name in both:
        changed = both | {name: both[name] + 1}
        other = prior.log_prob(params, batch["codes"], **changed)
        assert np.abs(other - log_p).min() > 1e-3
    assert prior.sample(params, jax.random.key(0), **both).shape == (2, *GRID)
    turned = jnp.ones((2, *GRID[1::-1], 3))
    with pytest.raises(UserError, match=r"features must have shape \[2, 2, 1, 3\]"):
        prior.sample(params, jax.random.key(0), vector=both["vector"], features=turned)
