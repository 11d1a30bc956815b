"""The prior: enumerated, sampled, evaluated, with and without conditions.

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
from frequency_checks import assert_follow
from tiny_models import changed, random_params

from vqvae_jax import metrics
from vqvae_jax.models.prior import Prior
from vqvae_jax.networks.pixelcnn import PixelCNN
from vqvae_jax.runtime.errors import UserError

GRID, K = (2, 1, 2), 3
SIZES = {"num_codes": K, "network": PixelCNN(layers=1, channels=8, kernel_size=3)}
PRIOR = Prior(grid=GRID, class_names=("cat", "dog"), **SIZES)
UNCONDITIONAL = Prior(grid=GRID, **SIZES)
EVERY_GRID = np.array(list(itertools.product(range(K), repeat=math.prod(GRID))))


@pytest.fixture(scope="module")
def params():
    return random_params(PRIOR, scale=0.5)


@pytest.fixture(scope="module")
def unconditional_params():
    return random_params(UNCONDITIONAL, scale=0.5)


@pytest.fixture(scope="module")
def log_probs(params):
    """log p of every grid, for each class: `[2, 81]`."""
    codes = jnp.asarray(np.tile(EVERY_GRID.reshape(-1, *GRID), (2, 1, 1, 1)), "int32")
    labels = jnp.repeat(jnp.arange(2), len(EVERY_GRID))
    log_prob = jax.jit(PRIOR.log_prob)
    return np.asarray(log_prob(params, codes, labels=labels)).reshape(2, -1)


@pytest.fixture
def batch():
    """Seven examples, of which three are padding."""
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
    def test_probabilities_sum_to_one_for_each_class(self, log_probs):
        np.testing.assert_allclose(np.exp(log_probs).sum(axis=1), 1, rtol=1e-5)
        # The distribution depends on the class and is not uniform.
        assert np.abs(log_probs[0] - log_probs[1]).max() > 0.1
        assert np.ptp(log_probs) > 1

    def test_other_grids_and_labels_raise(self, params, unconditional_params):
        codes = jnp.zeros((3, *GRID), jnp.int32)
        labels = jnp.zeros(3, jnp.int32)
        with pytest.raises(UserError, match=r"\[B, 2, 1, 2\], got \(3, 1, 2, 2\)"):
            PRIOR.log_prob(params, codes.swapaxes(1, 2), labels=labels)
        with pytest.raises(UserError, match=r"labels are needed.* 2 classes"):
            PRIOR.log_prob(params, codes)
        with pytest.raises(UserError, match="trained without labels"):
            UNCONDITIONAL.log_prob(unconditional_params, codes, labels=labels)
        with pytest.raises(UserError, match=r"codes must be in 0 ... 2, got -1"):
            PRIOR.log_prob(params, codes - 1, labels=labels)


class TestMarginal:
    """p(z) is the mean of p(z | class) over the classes."""

    def test_every_grid(self, params, log_probs):
        codes = jnp.asarray(EVERY_GRID.reshape(-1, *GRID), "int32")
        found = jax.jit(PRIOR.marginal_log_prob)(params, codes)
        p = np.exp(np.float64(log_probs)).mean(axis=0)
        np.testing.assert_allclose(np.exp(found), p, rtol=1e-5)
        np.testing.assert_allclose(np.exp(found).sum(), 1, rtol=1e-5)

    def test_bits_of_each_grid(self, params, batch, log_probs):
        found = metrics.each(jax.jit(PRIOR.evaluate_with_marginal)(params, batch))
        index = np.asarray(batch["codes"]).reshape(7, -1) @ K ** np.arange(4)[::-1]
        p = np.exp(np.float64(log_probs)).mean(axis=0)[index][np.asarray(batch["mask"])]
        np.testing.assert_allclose(found["marginal_bits"], -np.log2(p), rtol=1e-5)
        assert (found["bits"] != found["marginal_bits"]).all()

    def test_without_classes(self, unconditional_params, batch):
        log_prob = UNCONDITIONAL.log_prob(unconditional_params, batch["codes"])
        found = UNCONDITIONAL.marginal_log_prob(unconditional_params, batch["codes"])
        np.testing.assert_allclose(found, log_prob, rtol=1e-6)

    def test_with_withheld_labels_they_do_not_count_as_a_class(self, batch):
        prior = changed(PRIOR, {"label_dropout": 0.1})
        params = random_params(prior, scale=0.5)
        codes = batch["codes"]
        nats = [
            prior.log_prob(params, codes, labels=jnp.full(7, label))
            for label in range(2)
        ]
        expected = np.log(np.exp(np.float64(nats)).mean(axis=0))
        found = prior.marginal_log_prob(params, codes)
        np.testing.assert_allclose(found, expected, rtol=1e-5)


class TestTraining:
    def test_loss_is_minus_log_prob_of_valid_examples(self, params, batch, log_probs):
        """[10] In nats per code; padding does not count."""
        expected = expected_nats_per_code(batch, log_probs)
        loss, (means, _) = jax.jit(PRIOR.loss)(params, jax.random.key(0), batch)
        np.testing.assert_allclose(loss, expected, rtol=1e-5)
        bits = metrics.compute(means)
        assert bits == pytest.approx({"bits_per_code": expected / math.log(2)})
        assert means["bits_per_code"].weight == 4

    def test_evaluation_has_no_dropout(self, params, batch, log_probs):
        expected = expected_nats_per_code(batch, log_probs)
        noisy = changed(PRIOR, {"network.dropout": 0.5})
        values = metrics.compute(jax.jit(noisy.evaluate)(params, batch))
        assert values == pytest.approx(
            {"loss": expected, "bits_per_code": expected / math.log(2)}, rel=1e-5
        )
        loss = jax.jit(lambda key: noisy.loss(params, key, batch)[0])
        first, again, other = (float(loss(jax.random.key(n))) for n in (0, 0, 1))
        assert first == again != other
        assert first != pytest.approx(expected, rel=1e-3)

    def test_init_reads_labels_only_where_there_are_classes(self, params):
        batch = {"codes": jnp.zeros((1, *GRID), jnp.int32)}
        shapes = jax.eval_shape(UNCONDITIONAL.init, jax.random.key(0), batch)
        count = [sum(x.size for x in jax.tree.leaves(t)) for t in (shapes, params)]
        # The labels' embedding, and a projection to both stacks' gates.
        assert count[1] - count[0] == 2 * 8 + 8 * 32 + 32

    def test_embeddings_start_from_given_codebooks(self):
        """Distances of codes are kept up to a scale; other parameters do not change."""
        angles = np.linspace(0, np.pi, 12)
        vectors = np.stack([np.cos(angles), np.sin(angles)], axis=-1).astype("f4")
        prior = dataclasses.replace(
            UNCONDITIONAL, num_codes=12, network=PixelCNN(layers=1, channels=64)
        )
        started = dataclasses.replace(
            prior, code_vectors=np.stack([vectors, vectors[::-1]])
        )
        assert started == prior
        batch = {"codes": jnp.zeros((1, *GRID), jnp.int32)}
        random, found = (
            jax.jit(model.init)(jax.random.key(0), batch)["params"]
            for model in (prior, started)
        )
        for part in (found, found["cell_decoder"]):
            for table, of in zip(
                part["embedding"]["tables"], (vectors, vectors[::-1]), strict=True
            ):
                distances = np.linalg.norm(table[:, None] - table[None], axis=-1)
                expected = np.linalg.norm(of[:, None] - of[None], axis=-1)
                correlation = np.corrcoef(distances.ravel(), expected.ravel())[0, 1]
                assert correlation > 0.9
        for network in (random, found):
            network.pop("embedding")
            network["cell_decoder"].pop("embedding")
        jax.tree.map(np.testing.assert_array_equal, random, found)


class TestSample:
    @pytest.fixture(scope="class")
    @classmethod
    def draw(cls, params):
        sample = functools.partial(jax.jit(PRIOR.sample), params)
        return lambda labels: np.asarray(sample(jax.random.key(0), labels=labels))

    def test_frequencies_are_the_probabilities_of_each_class(self, draw, log_probs):
        """[19] A chi-squared test for each label."""
        labels = np.arange(20_000) % 2
        codes = draw(jnp.asarray(labels))
        assert (codes.shape, codes.dtype) == ((20_000, *GRID), np.int32)
        index = codes.reshape(20_000, -1) @ K ** np.arange(4)[::-1]
        for label in range(2):
            counts = np.bincount(index[labels == label], minlength=len(EVERY_GRID))
            assert_follow(counts, np.exp(np.float64(log_probs[label])))

    def test_needs_labels_or_a_number(self, params, unconditional_params):
        key = jax.random.key(0)
        labels = jnp.zeros(2, jnp.int32)
        with pytest.raises(UserError, match="labels or num_samples"):
            PRIOR.sample(params, key)
        with pytest.raises(UserError, match="labels are needed"):
            PRIOR.sample(params, key, num_samples=2)
        with pytest.raises(UserError, match="trained without labels"):
            UNCONDITIONAL.sample(unconditional_params, key, labels=labels)
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
    def test_invalid_arguments_raise(self, params, options, message):
        options = {"labels": np.zeros(2, int), **options}
        with pytest.raises(UserError, match=f"^{message}"):
            PRIOR.sample(params, jax.random.key(0), **options)

    @pytest.mark.parametrize(
        "other",
        [
            dataclasses.replace(PRIOR, num_codes=K + 1),
            dataclasses.replace(PRIOR, grid=(2, 1, 3)),
            changed(PRIOR, {"network.channels": 9}),
        ],
        ids=["num_codes", "grid", "channels"],
    )
    def test_parameters_of_other_sizes_raise(self, params, other):
        message = r"params are .* \(2, 3, 8\), this"
        with pytest.raises(UserError, match=message):
            other.sample(params, jax.random.key(0), labels=np.zeros(1, int))
        codes = np.zeros((1, *other.grid), int)
        with pytest.raises(UserError, match=message):
            other.log_prob(params, codes, labels=np.zeros(1, int))

    def test_without_classes(self, unconditional_params):
        codes = UNCONDITIONAL.sample(
            unconditional_params, jax.random.key(0), num_samples=5
        )
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

    def test_inside_vmap_and_jit(self, params):
        labels = jnp.array([[0, 1], [1, 0]])
        keys = jax.random.split(jax.random.key(0), 2)
        one_by_one = [
            PRIOR.sample(params, key, labels=row)
            for key, row in zip(keys, labels, strict=True)
        ]
        mapped = jax.vmap(lambda key, row: PRIOR.sample(params, key, labels=row))
        np.testing.assert_array_equal(jax.jit(mapped)(keys, labels), one_by_one)


class TestGivenCodes:
    def test_log_prob_is_that_of_the_drawn_codes(self, params, log_probs):
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


class TestLabelDropout:
    PRIOR = Prior(grid=GRID, class_names=("a", "b"), label_dropout=0.3, **SIZES)

    @pytest.fixture(scope="class")
    @classmethod
    def params(cls):
        return random_params(cls.PRIOR, scale=0.5)

    def test_withheld_labels_are_another_class(self, params):
        """Its probabilities sum to 1 and differ from those of both classes."""
        codes = jnp.asarray(EVERY_GRID.reshape(-1, *GRID), "int32")
        without = np.asarray(self.PRIOR.log_prob(params, codes))
        assert np.exp(without).sum() == pytest.approx(1, rel=1e-5)
        for label in range(2):
            labels = jnp.full(len(EVERY_GRID), label)
            given = np.asarray(self.PRIOR.log_prob(params, codes, labels=labels))
            assert np.abs(given - without).max() > 0.1

    def test_the_loss_withholds_this_fraction_of_labels(self, params):
        """For each key it is one of both losses."""
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
        assert_follow(seen, p)


def test_a_vector_and_a_map_condition_every_method():
    prior = Prior(grid=GRID, vector_features=2, map_features=3, **SIZES)
    both = {"vector": jnp.ones((2, 2)), "features": jnp.ones((2, *GRID[:2], 3))}
    batch = {
        "codes": jnp.zeros((2, *GRID), jnp.int32),
        "mask": jnp.ones(2, bool),
        **both,
    }
    params = random_params(prior, batch, scale=0.5)
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


class TestOptions:
    def test_classes_are_counted_by_their_names(self):
        assert PRIOR.num_classes == 2
        assert UNCONDITIONAL.num_classes == 0

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("label_dropout", 1.0),
            ("network.layers", 0),
            ("network.channels", 0),
            ("network.kernel_size", 4),
            ("network.kernel_size", 1),
            ("network.cell_layers", -1),
            ("network.dropout", 1.0),
            ("network.dropout", -0.1),
            ("network.dtype", "float16"),
        ],
    )
    def test_invalid_options_raise(self, name, value):
        with pytest.raises(UserError, match=rf"^model\.{name} must .*{value}"):
            changed(PRIOR, {name: value})

    @pytest.mark.parametrize(
        ("name", "value"),
        [("num_codes", 0), ("map_features", -1), ("vector_features", -1)],
    )
    def test_invalid_sizes_of_data_raise(self, name, value):
        with pytest.raises(UserError, match=rf"^{name} must .*{value}"):
            dataclasses.replace(PRIOR, **{name: value})
