"""K-means and restarts, and the EMA updates after them.

Numbers in brackets are rows of the list of known defects in docs/conformance.md.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqvae_jax import quantizers
from vqvae_jax.quantizers import VQ, Codebook


class TestKmeans:
    def test_finds_separate_clusters(self):
        rng = np.random.default_rng(0)
        centres = np.array([[0, 0], [10, 0], [0, 10], [10, 10]])
        points = centres[rng.integers(4, size=400)] + 0.1 * rng.normal(size=(400, 2))
        vq = VQ(num_codes=8, dim=2)
        codebook = vq.init(jax.random.key(1), jnp.asarray(points, "float32"))
        found = np.asarray(codebook.embeddings[0])
        gaps = np.linalg.norm(centres[:, None] - found, axis=-1).min(axis=1)
        assert gaps.max() < 0.2

    def test_first_update_keeps_norms(self):
        """[6] The sums are the means times their counts."""
        z_e = 4 + jax.random.normal(jax.random.key(0), (2000, 8))
        vq = VQ(num_codes=64, dim=8, codebook_update="ema")
        codebook = vq.init(jax.random.key(2), z_e)
        codes = vq.quantize(codebook, z_e).codes
        after = vq.update(codebook, z_e, codes, key=jax.random.key(3))
        norm = np.linalg.norm(codebook.embeddings, axis=-1).mean()
        assert np.linalg.norm(after.embeddings, axis=-1).mean() == pytest.approx(
            norm, rel=0.01
        )

    def test_fewer_vectors_than_codes(self, vq, codebook):
        z_e = jax.random.normal(jax.random.key(0), (3, vq.features))
        fitted = quantizers.kmeans(jax.random.key(1), codebook, z_e)
        assert np.isfinite(fitted.embeddings).all()
        assert vq.quantize(fitted, z_e).losses["commitment"].max() < 1e-6

    def test_an_empty_cluster_restarts_from_another_drawn_vector(self):
        """The data are a, a and b, and so are the first three rows, in some order.

        One of both rows a is empty, as ties go to the other. It becomes a vector of a
        new draw, which is b for a third of the keys.
        """
        a, b = np.array([1.0, 2.0]), np.array([3.0, -4.0])
        z_e = jnp.asarray(np.stack([a, a, b]), "float32")
        empty = VQ(num_codes=3, dim=2, codebook_init="uniform").init(jax.random.key(0))
        fit = functools.partial(quantizers.kmeans, iterations=1)
        keys = jax.random.split(jax.random.key(0), 300)
        fitted = jax.vmap(lambda key: fit(key, empty, z_e))(keys)
        rows = np.asarray(fitted.embeddings)[:, 0]
        is_a, is_b = (np.all(rows == x, axis=-1) for x in (a, b))
        assert (is_a | is_b).all()
        # Without the draw there would be one b for every key.
        assert set(is_b.sum(axis=1)) == {1, 2}
        assert (is_b.sum(axis=1) == 2).mean() == pytest.approx(1 / 3, abs=0.1)


@pytest.mark.parametrize("function", [quantizers.kmeans, quantizers.restart])
def test_no_vectors_to_draw_from_raise_in_one_line(function, codebook):
    empty = jnp.zeros((0, 12))
    with pytest.raises(ValueError, match=r"z_e, which is empty: shape \(0, 12\)$"):
        function(jax.random.key(0), codebook, empty)


class TestRestart:
    def test_restarted_codes_survive_the_next_update(self, codebook, z_e):
        """[5] Count and sum restart with the embedding."""
        G, K, D = codebook.embeddings.shape
        dead = codebook._replace(counts=codebook.counts.at[:, 2].set(1e-4))
        after = quantizers.restart(jax.random.key(0), dead, z_e, min_count=0.01)
        vectors = np.asarray(z_e).reshape(-1, G, D)
        for g in range(G):
            gaps = np.abs(vectors[:, g] - np.asarray(after.embeddings)[g, 2]).max(
                axis=1
            )
            assert gaps.min() == 0
        alive = np.arange(K) != 2
        np.testing.assert_array_equal(
            after.embeddings[:, alive], codebook.embeddings[:, alive]
        )
        np.testing.assert_array_equal(after.counts[:, 2], np.ones(G))
        unused = jnp.zeros((1, G), jnp.int32)
        ema = VQ(num_codes=K, dim=D, num_codebooks=G, codebook_update="ema")
        updated = ema.update(after, z_e[0, 0, :1], unused, key=jax.random.key(0))
        np.testing.assert_allclose(
            updated.embeddings[:, 2], after.embeddings[:, 2], atol=1e-6
        )

    def test_all_padding_keeps_embeddings(self, codebook, z_e):
        dead = codebook._replace(counts=jnp.zeros_like(codebook.counts))
        nothing = jnp.zeros(z_e.shape[:-1], bool)
        after = quantizers.restart(jax.random.key(0), dead, z_e, mask=nothing)
        np.testing.assert_array_equal(after.embeddings, codebook.embeddings)

    @pytest.mark.parametrize("codebook_update", ["loss", "ema"])
    def test_update_restarts_codes_below_the_threshold(self, codebook_update, z_e):
        """Of all codes but the one in use, after the first update."""
        vq = VQ(
            num_codes=7,
            dim=4,
            num_codebooks=3,
            codebook_update=codebook_update,
            codebook_init="uniform",
            dead_code_threshold=0.995,
        )
        codebook = vq.init(jax.random.key(0))
        codes = jnp.zeros((*z_e.shape[:-1], 3), jnp.int32)
        after = vq.update(codebook, z_e, codes, key=jax.random.key(1))
        vectors = np.asarray(z_e).reshape(-1, 3, 4)
        for g in range(3):
            gaps = np.abs(vectors[:, None, g] - np.asarray(after.embeddings)[g, 1:])
            assert not gaps.max(axis=-1).min(axis=0).any()
        np.testing.assert_array_equal(after.counts[:, 1:], 1.0)


def test_a_restart_of_no_code_changes_nothing():
    """The sums of the cosine distance's EMA are no products of rows and counts."""
    rng = np.random.default_rng(0)
    embeddings = jnp.asarray(rng.normal(size=(2, 5, 3)), "float32")
    sums = jnp.asarray(rng.normal(size=(2, 5, 3)), "float32")
    codebook = Codebook(embeddings, jnp.full((2, 5), 2.0), sums)
    z_e = jnp.asarray(rng.normal(size=(7, 6)), "float32")
    after = quantizers.restart(jax.random.key(0), codebook, z_e, min_count=1.0)
    jax.tree.map(np.testing.assert_array_equal, after, codebook)
    # A dead code restarts with the sum of its new row, the others keep theirs.
    counts = codebook.counts.at[1, 3].set(0.0)
    after = quantizers.restart(
        jax.random.key(0), codebook._replace(counts=counts), z_e, min_count=0.5
    )
    np.testing.assert_array_equal(after.sums[1, 3], after.embeddings[1, 3])
    np.testing.assert_array_equal(after.sums.at[1, 3].set(0), sums.at[1, 3].set(0))
