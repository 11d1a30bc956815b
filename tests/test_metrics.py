"""Metrics summed over batches of any size against NumPy over the whole set.

Numbers in brackets are rows of the list of known defects in docs/conformance.md.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqvae_jax import metrics

G, K = 2, 11
EXAMPLES, BATCH = 1003, 64


@functools.partial(jax.jit, static_argnames="num_codes")
def evaluate(values, codes, mask, *, num_codes):
    return {
        "nats": metrics.mean(values, mask),
        "usage": metrics.code_usage(codes, num_codes=num_codes, mask=mask),
    }


def padded_batches(values, codes):
    """Yield batches of 64, the last one padded with NaN and code 0, and masked."""
    for start in range(0, EXAMPLES, BATCH):
        part = slice(start, start + BATCH)
        missing = BATCH - len(values[part])
        yield (
            np.pad(
                values[part], ((0, missing), (0, 0), (0, 0)), constant_values=np.nan
            ),
            np.pad(codes[part], ((0, missing), (0, 0), (0, 0))),
            np.arange(BATCH) < BATCH - missing,
        )


def perplexity(codes):
    p = np.bincount(codes.ravel(), minlength=K) / codes.size
    return np.exp(-np.sum(p[p > 0] * np.log(p[p > 0])))


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(EXAMPLES, 2, 3)).astype(np.float32)
    # The codes drift, so each batch uses fewer of them than the whole set.
    drift = np.arange(EXAMPLES)[:, None, None] // 150
    codes = (drift + rng.integers(3, size=(EXAMPLES, 4, G))) % K
    codes[codes == 5] = 4
    return values, codes.astype(np.int32)


@pytest.fixture(scope="module")
def batches(data):
    return [
        evaluate(*map(jnp.asarray, batch), num_codes=K)
        for batch in padded_batches(*data)
    ]


class TestWholeSet:
    def test_each_example_counts_once(self, data, batches):
        """[21] 1003 examples in batches of 64; NaN in padding does not leak."""
        values, codes = data
        sums = metrics.total(batches)
        assert sums["nats"].weight == EXAMPLES
        np.testing.assert_allclose(
            sums["nats"].total,
            values.mean(axis=(1, 2), dtype=np.float64).sum(),
            atol=1e-4,
        )
        counts = [np.bincount(codes[..., g].ravel(), minlength=K) for g in range(G)]
        np.testing.assert_array_equal(sums["usage"].counts, counts)
        assert np.asarray(sums["usage"].counts).dtype == np.float64

    def test_computed_values_are_those_of_the_whole_set(self, data, batches):
        """[12] Perplexity is that of the summed counts, not the mean over batches."""
        values, codes = data
        computed = metrics.compute(metrics.total(batches))
        expected = np.mean([perplexity(codes[..., g]) for g in range(G)])
        active = sum(len(np.unique(codes[..., g])) for g in range(G))
        assert computed == pytest.approx(
            {
                "nats": values.mean(dtype=np.float64),
                "codebook_perplexity": expected,
                "codebook_active_codes": active,
            },
            rel=1e-6,
        )
        per_batch = [metrics.compute(batch)["codebook_perplexity"] for batch in batches]
        assert np.mean(per_batch) < 0.7 * expected

    def test_the_batch_size_does_not_matter(self, data, batches):
        values, codes = data
        whole = evaluate(
            jnp.asarray(values),
            jnp.asarray(codes),
            jnp.ones(EXAMPLES, bool),
            num_codes=K,
        )
        assert metrics.compute(whole) == pytest.approx(
            metrics.compute(metrics.total(batches)), rel=1e-5
        )


def test_means_without_a_mask_and_with_an_empty_one():
    values = jnp.array([[1.0, 3.0], [5.0, 7.0]])
    assert [float(x) for x in metrics.mean(values)] == [8.0, 2.0]
    empty = jnp.zeros(2, bool)
    assert float(metrics.masked_mean(values, empty)) == 0
    assert metrics.compute({"m": metrics.mean(values, empty)}) == {"m": 0.0}
    assert metrics.total([]) == {}


def test_mean_over_weights_all_values_equally():
    """Three values of the first example count, and one of the second."""
    values = jnp.array([[1.0, 2.0, 3.0], [10.0, jnp.nan, jnp.nan]])
    mask = jnp.array([[True, True, True], [True, False, False]])
    assert [float(x) for x in metrics.mean_over(values, mask)] == [16.0, 4.0]
    assert float(metrics.mean(values, jnp.array([True, False])).total) == 2.0


def test_values_per_example_are_kept_in_order():
    """In batches of four with a padded last one, next to other metrics."""
    values = np.random.default_rng(0).normal(size=11).astype(np.float32)
    padded = np.append(values, np.nan).astype(np.float32)
    mask = np.arange(12) < 11
    batches = [
        {
            "bits": metrics.of_each(jnp.asarray(part), jnp.asarray(keep)),
            "mean": metrics.mean(jnp.asarray(part), jnp.asarray(keep)),
        }
        for part, keep in zip(np.split(padded, 3), np.split(mask, 3), strict=True)
    ]
    sums = metrics.total(batches)
    found = metrics.each(sums)
    assert set(found) == {"bits"}
    np.testing.assert_array_equal(found["bits"], values)
    assert metrics.compute(sums) == pytest.approx({"mean": values.mean()}, rel=1e-5)


def test_nan_in_padding_does_not_reach_the_gradient_of_a_masked_mean():
    values = jnp.array([[1.0], [jnp.nan], [4.0]])
    mask = jnp.array([True, False, True])
    mean, slope = jax.value_and_grad(metrics.masked_mean)(values, mask)
    assert float(mean) == 2.5
    np.testing.assert_array_equal(slope, [[0.5], [0.0], [0.5]])


@pytest.mark.parametrize(
    ("counts", "nats"),
    [
        ([[4, 2, 1, 1], [0, 9, 0, 0]], [1.75 * np.log(2), 0]),
        ([[0, 0], [3, 3]], [0, np.log(2)]),
        ([[1, 1, 1]], [np.log(3)]),
    ],
)
def test_entropy_of_histograms(counts, nats):
    np.testing.assert_allclose(metrics.entropy(np.array(counts, float)), nats)


class TestRedundancy:
    def test_effective_rank_counts_axes_with_variance(self):
        """Vectors in a plane of five dimensions, off the origin, in two batches."""
        rng = np.random.default_rng(0)
        plane = rng.normal(size=(2, 5))
        vectors = 3 + rng.normal(size=(40, 6, 2)) @ plane
        # The last eight examples are padding.
        vectors = np.concatenate([vectors, np.full((8, 6, 5), np.nan)])
        mask = np.arange(48) < 40
        batches = [
            {"z": metrics.moments(jnp.float32(vectors[part]), jnp.asarray(mask[part]))}
            for part in (slice(0, 32), slice(32, 48))
        ]
        sums = metrics.total(batches)
        assert sums["z"].count == 240
        assert metrics.compute(sums) == {"z_effective_rank": 2}
        np.testing.assert_allclose(
            sums["z"].second,
            vectors[:40].reshape(-1, 5).T @ vectors[:40].reshape(-1, 5),
            rtol=1e-5,
        )

    @pytest.mark.parametrize(("share", "rank"), [(0.002, 2), (0.0005, 1)])
    def test_effective_rank_ignores_a_thousandth_of_the_variance(self, share, rank):
        variances = np.diag([1.0, share / (1 - share), 0.0])
        moments = metrics.Moments(np.float64(10), np.zeros(3), 10 * variances)
        assert metrics.effective_rank(moments) == rank

    def test_effective_rank_of_a_point_is_zero(self):
        point = metrics.Moments(np.float64(4), np.zeros(3), np.zeros((3, 3)))
        assert metrics.effective_rank(point) == 0

    def test_mutual_information_of_known_codes(self):
        """Equal codes share their entropy, half-equal ones half, others nothing."""
        rng = np.random.default_rng(0)
        high, low, other = rng.integers(4, size=(3, 60_000))
        codes = np.stack([4 * high + low, 4 * high + other, rng.permuted(high)], axis=1)
        equal = np.stack([codes[:, 0], codes[:, 0]], axis=1)
        shared = metrics.mutual_information(codes, num_codes=16)
        np.testing.assert_allclose(shared, [2, 0, 0], atol=0.01)
        np.testing.assert_allclose(
            metrics.mutual_information(equal, num_codes=16), [4], atol=0.01
        )
