"""K-means and restarts, and the EMA updates after them.

Numbers in brackets are rows of the list of known defects in docs/conformance.md.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqvae_jax import quantizers


class TestKmeans:
    def test_finds_separate_clusters(self):
        rng = np.random.default_rng(0)
        centres = np.array([[0, 0], [10, 0], [0, 10], [10, 10]])
        points = centres[rng.integers(4, size=400)] + 0.1 * rng.normal(size=(400, 2))
        codebook = quantizers.init(jax.random.key(0), num_codes=8, dim=2)
        codebook = quantizers.kmeans(
            jax.random.key(1), codebook, jnp.asarray(points, "float32")
        )
        found = np.asarray(codebook.embeddings[0])
        gaps = np.linalg.norm(centres[:, None] - found, axis=-1).min(axis=1)
        assert gaps.max() < 0.2

    def test_first_update_keeps_norms(self):
        """[6] Means are stored with the sums that belong to them."""
        z_e = 4 + jax.random.normal(jax.random.key(0), (2000, 8))
        codebook = quantizers.init(jax.random.key(1), num_codes=64, dim=8)
        codebook = quantizers.kmeans(jax.random.key(2), codebook, z_e)
        codes = quantizers.quantize(codebook, z_e).codes
        after = quantizers.ema_update(codebook, z_e, codes)
        norm = np.linalg.norm(codebook.embeddings, axis=-1).mean()
        assert np.linalg.norm(after.embeddings, axis=-1).mean() == pytest.approx(
            norm, rel=0.01
        )

    def test_fewer_vectors_than_codes(self, codebook):
        G, _, D = codebook.embeddings.shape
        z_e = jax.random.normal(jax.random.key(0), (3, G * D))
        fitted = quantizers.kmeans(jax.random.key(1), codebook, z_e)
        assert np.isfinite(fitted.embeddings).all()
        assert quantizers.quantize(fitted, z_e).commitment_loss.max() < 1e-6

    def test_padding_is_never_drawn(self, codebook, z_e, mask):
        padded = jnp.where(mask[..., None], z_e, 1e6)
        fitted = quantizers.kmeans(jax.random.key(1), codebook, padded, mask=mask)
        assert np.abs(fitted.embeddings).max() < 100


class TestRestart:
    def test_dead_codes_stay_where_they_are_put(self, codebook, z_e):
        """[5] Count and sum restart with the embedding: the next update keeps it."""
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
        updated = quantizers.ema_update(after, z_e[0, 0, :1], unused)
        np.testing.assert_allclose(
            updated.embeddings[:, 2], after.embeddings[:, 2], atol=1e-6
        )

    def test_all_padding_leaves_embeddings(self, codebook, z_e):
        dead = codebook._replace(counts=jnp.zeros_like(codebook.counts))
        nothing = jnp.zeros(z_e.shape[:-1], bool)
        after = quantizers.restart(jax.random.key(0), dead, z_e, mask=nothing)
        np.testing.assert_array_equal(after.embeddings, codebook.embeddings)
