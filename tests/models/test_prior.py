"""The prior as a distribution: enumerated, sampled, evaluated.

Numbers in brackets are rows of the list of known defects in docs/conformance.md.
"""

import dataclasses
import functools
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
PRIOR = Prior(grid=GRID, class_names=("cat", "dog"), **SIZES)
UNCONDITIONAL = Prior(grid=GRID, **SIZES)
EVERY_GRID = np.array(list(itertools.product(range(K), repeat=math.prod(GRID))))


def random_params(prior):
    """Random arrays of the right shapes: `init` would take seconds to compile."""
    rng = np.random.default_rng(0)
    batch = {"codes": jnp.zeros((1, *GRID), jnp.int32), "label": jnp.zeros(1, int)}
    shapes = jax.eval_shape(prior.init, jax.random.key(0), batch)
    return jax.tree.map(
        lambda leaf: jnp.asarray(0.5 * rng.normal(size=leaf.shape), "float32"), shapes
    )


OTHER_PARAMS = random_params(UNCONDITIONAL)


@pytest.fixture(scope="module")
def params():
    return random_params(PRIOR)


@pytest.fixture(scope="module")
def log_probs(params):
    """Ours of every grid, for each class: `[2, 81]`."""
    codes = jnp.asarray(np.tile(EVERY_GRID.reshape(-1, *GRID), (2, 1, 1, 1)), "int32")
    labels = jnp.repeat(jnp.arange(2), len(EVERY_GRID))
    log_prob = jax.jit(PRIOR.log_prob)
    return np.asarray(log_prob(params, codes, labels=labels)).reshape(2, -1)


@pytest.fixture
def batch():
    """Seven examples, of which three only fill up the batch."""
    rng = np.random.default_rng(1)
    return {
        "codes": jnp.asarray(rng.integers(K, size=(7, *GRID)), "int32"),
        "label": jnp.asarray(rng.integers(2, size=7), "int32"),
        "mask": jnp.array([True, False, True, True, False, True, False]),
    }


def expected_nats_per_code(batch, log_probs):
    index = np.asarray(batch["codes"]).reshape(7, -1) @ K ** np.arange(4)[::-1]
    nll = -np.float64(log_probs)[np.asarray(batch["label"]), index]
    return nll[np.asarray(batch["mask"])].mean() / math.prod(GRID)


class TestLogProb:
    def test_sums_to_one_for_each_class(self, log_probs):
        np.testing.assert_allclose(np.exp(log_probs).sum(axis=1), 1, rtol=1e-5)
        # The class matters, and the distribution is not even.
        assert np.abs(log_probs[0] - log_probs[1]).max() > 0.1
        assert np.ptp(log_probs) > 1

    def test_refuses_other_grids_and_labels(self, params):
        codes = jnp.zeros((3, *GRID), jnp.int32)
        labels = jnp.zeros(3, jnp.int32)
        with pytest.raises(UserError, match=r"\[B, 2, 1, 2\], got \(3, 1, 2, 2\)"):
            PRIOR.log_prob(params, codes.swapaxes(1, 2), labels=labels)
        with pytest.raises(UserError, match=r"labels are needed.* 2 classes"):
            PRIOR.log_prob(params, codes)
        with pytest.raises(UserError, match="trained without labels"):
            UNCONDITIONAL.log_prob(OTHER_PARAMS, codes, labels=labels)
        with pytest.raises(UserError, match=r"codes must be in 0 ... 2, got -1"):
            PRIOR.log_prob(params, codes - 1, labels=labels)


class TestTraining:
    def test_loss_is_minus_log_prob_of_valid_examples(self, params, batch, log_probs):
        """[10] In nats a code; examples that fill up the batch do not count."""
        expected = expected_nats_per_code(batch, log_probs)
        loss, (means, carry) = jax.jit(PRIOR.loss)(params, jax.random.key(0), batch)
        np.testing.assert_allclose(loss, expected, rtol=1e-5)
        bits = metrics.compute(means)
        assert bits == pytest.approx({"bits_per_code": expected / math.log(2)})
        assert means["bits_per_code"].weight == 4
        assert PRIOR.update(params, jax.random.key(0), carry) is params
        assert all(jax.tree.leaves(PRIOR.trainable(params)))

    def test_evaluation_has_no_dropout(self, params, batch, log_probs):
        expected = expected_nats_per_code(batch, log_probs)
        noisy = Prior(grid=GRID, class_names=("a", "b"), dropout=0.5, **SIZES)
        values = metrics.compute(jax.jit(noisy.evaluate)(params, batch))
        assert values == pytest.approx(
            {"loss": expected, "bits_per_code": expected / math.log(2)}, rel=1e-5
        )
        loss = jax.jit(lambda key: noisy.loss(params, key, batch)[0])
        first, again, other = (float(loss(jax.random.key(n))) for n in (0, 0, 1))
        assert first == again != other
        assert first != pytest.approx(expected, rel=1e-3)

    def test_init_needs_no_labels_where_there_are_no_classes(self):
        shapes = jax.eval_shape(
            UNCONDITIONAL.init,
            jax.random.key(0),
            {"codes": jnp.zeros((1, *GRID), jnp.int32), "label": jnp.zeros(1, int)},
        )
        conditional = jax.eval_shape(lambda: random_params(PRIOR))
        count = [sum(x.size for x in jax.tree.leaves(t)) for t in (shapes, conditional)]
        # The labels' embedding, and a projection to both stacks' gates.
        assert count[1] - count[0] == 2 * 8 + 8 * 32 + 32


class TestSample:
    @pytest.fixture(scope="class")
    @classmethod
    def draw(cls, params):
        sample = functools.partial(jax.jit(PRIOR.sample), params)
        return lambda labels: np.asarray(sample(jax.random.key(0), labels=labels))

    def test_frequencies_are_the_probabilities_of_each_class(self, draw, log_probs):
        """[19] Half of the draws for each label, each by its own distribution."""
        labels = np.arange(20_000) % 2
        codes = draw(jnp.asarray(labels))
        assert (codes.shape, codes.dtype) == ((20_000, *GRID), np.int32)
        index = codes.reshape(20_000, -1) @ K ** np.arange(4)[::-1]
        for label in range(2):
            counts = np.bincount(index[labels == label], minlength=len(EVERY_GRID))
            p = np.exp(np.float64(log_probs[label]))
            p /= p.sum()
            # Grids with fewer than 5 expected draws are tested as one.
            seldom = 10_000 * p < 5
            group = np.where(seldom, 0, 1 + np.cumsum(~seldom))
            seen = [counts[group == g].sum() for g in np.unique(group)]
            expected = [10_000 * p[group == g].sum() for g in np.unique(group)]
            assert stats.chisquare(seen, expected).pvalue > 1e-3

    def test_needs_labels_or_a_number(self, params):
        key = jax.random.key(0)
        labels = jnp.zeros(2, jnp.int32)
        with pytest.raises(UserError, match="labels or num_samples"):
            PRIOR.sample(params, key)
        with pytest.raises(UserError, match="labels are needed"):
            PRIOR.sample(params, key, num_samples=2)
        with pytest.raises(UserError, match="trained without labels"):
            UNCONDITIONAL.sample(OTHER_PARAMS, key, labels=labels)
        with pytest.raises(UserError, match=r"of one size, got \[2, 3\]"):
            PRIOR.sample(params, key, labels=labels, num_samples=3)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"temperature": 0.0}, "temperature must be above 0, got 0.0"),
            ({"temperature": float("nan")}, "temperature must be above 0, got nan"),
            ({"top_k": 0}, "top_k must be at least 1, got 0"),
            ({"top_p": 0.0}, r"top_p must be in \(0, 1\], got 0.0"),
            ({"top_p": 1.5}, r"top_p must be in \(0, 1\], got 1.5"),
            ({"guidance": 2.0}, "guidance needs labels, and .* label_dropout above 0"),
            ({"labels": np.array([0, 2])}, r"labels must be in 0 ... 1, got 0 ... 2"),
            ({"labels": np.array([-1, 0])}, r"labels must be in 0 ... 1, got -1 ... 0"),
            ({"features": jnp.zeros((2, *GRID[:2], 4))}, "features were given"),
            (
                {"given": np.zeros((2, 1, 2, 2), int)},
                r"given must have .* \[2, 2, 1, 2",
            ),
            ({"given": np.full((2, *GRID), K)}, r"given must be in -1 ... 2, got 3"),
            (
                {"leading": np.zeros((2, 2, 1, 2), int)},
                "leading must have 1 ... 1 rows",
            ),
            ({"leading": np.full((2, 1, 1, 2), -1)}, "leading must be in 0 ... 2"),
        ],
        ids=lambda x: x if isinstance(x, str) else next(iter(x)),
    )
    def test_impossible_requests_are_told(self, params, options, message):
        options = {"labels": np.zeros(2, int), **options}
        with pytest.raises(UserError, match=f"^{message}"):
            PRIOR.sample(params, jax.random.key(0), **options)

    def test_parameters_of_other_sizes(self, params):
        """K, C and units of the prior that was trained must be those of this one."""
        for change in ({"num_codes": K + 1}, {"grid": (2, 1, 3)}, {"units": 9}):
            other = dataclasses.replace(PRIOR, **change)
            with pytest.raises(UserError, match=r"params are .* \(2, 3, 8\), this"):
                other.sample(params, jax.random.key(0), labels=np.zeros(1, int))
            codes = np.zeros((1, *other.grid), int)
            with pytest.raises(UserError, match=r"params are .* \(2, 3, 8\), this"):
                other.log_prob(params, codes, labels=np.zeros(1, int))

    def test_without_classes(self):
        codes = UNCONDITIONAL.sample(OTHER_PARAMS, jax.random.key(0), num_samples=5)
        assert codes.shape == (5, *GRID)
        assert codes.min() >= 0
        assert codes.max() < K

    def test_one_compilation_for_all_labels_and_temperatures(self, params):
        size_before = Prior._draw._cache_size()
        for seed in range(3):
            PRIOR.sample(
                params,
                jax.random.key(seed),
                labels=np.array([seed % 2] * 6),
                temperature=1.0 + seed,
                top_p=0.5 + 0.1 * seed,
            )
        assert Prior._draw._cache_size() == size_before + 1

    def test_inside_other_transforms(self, params):
        labels = jnp.array([[0, 1], [1, 0]])
        keys = jax.random.split(jax.random.key(0), 2)
        one_by_one = [
            PRIOR.sample(params, key, labels=row)
            for key, row in zip(keys, labels, strict=True)
        ]
        mapped = jax.vmap(lambda key, row: PRIOR.sample(params, key, labels=row))
        np.testing.assert_array_equal(jax.jit(mapped)(keys, labels), one_by_one)


class TestGivenCodes:
    def test_their_log_probability_is_that_of_the_drawn_ones(self, params, log_probs):
        """log p(rest | leading), by enumeration."""
        codes = jnp.asarray(EVERY_GRID.reshape(-1, *GRID), "int32")
        labels = jnp.zeros(len(EVERY_GRID), jnp.int32)
        given = codes.at[:, 1:].set(-1)
        found = PRIOR.log_prob(params, codes, labels=labels, given=given)
        joint = np.exp(np.float64(log_probs[0])).reshape(K**2, K**2)
        expected = joint / joint.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(np.exp(found), expected.ravel(), rtol=1e-4)

    def test_leading_rows_and_given_codes_are_kept(self, params):
        labels = np.arange(40) % 2
        codes = np.random.default_rng(0).integers(K, size=(40, *GRID))
        draw = functools.partial(PRIOR.sample, params, jax.random.key(0), labels=labels)
        completed = draw(leading=codes[:, :1])
        np.testing.assert_array_equal(completed[:, :1], codes[:, :1])
        assert (completed[:, 1:] != codes[:, 1:]).any()
        given = np.where(np.arange(2) < 1, codes, -1)
        np.testing.assert_array_equal(draw(given=given)[..., 0], codes[..., 0])


class TestOptions:
    def test_classes_are_counted_by_their_names(self):
        assert PRIOR.num_classes == 2
        assert UNCONDITIONAL.num_classes == 0
        assert hash(PRIOR) == hash(
            Prior(grid=GRID, class_names=("cat", "dog"), **SIZES)
        )

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("num_codes", 0),
            ("layers", 0),
            ("units", 0),
            ("kernel_size", 4),
            ("kernel_size", 1),
            ("label_dropout", 1.0),
            ("map_features", -1),
            ("cell_layers", -1),
            ("dropout", 1.0),
            ("dropout", -0.1),
            ("dtype", "float16"),
        ],
    )
    def test_impossible_values_are_told(self, name, value):
        with pytest.raises(UserError, match=rf"^{name} must .*{value}"):
            Prior(**{"grid": GRID, **SIZES, name: value})
