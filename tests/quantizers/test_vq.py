"""Codes, rows, losses and their gradients, against NumPy.

Numbers in brackets are rows of the list of known defects in docs/conformance.md.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqvae_jax import quantizers
from vqvae_jax.quantizers.vq import require_mask


class TestInit:
    def test_statistics_start_at_one_use_each(self):
        G, K, D = 3, 7, 4
        codebook = quantizers.init(
            jax.random.key(0), num_codes=K, dim=D, num_codebooks=G
        )
        assert codebook.embeddings.shape == (G, K, D)
        np.testing.assert_array_equal(codebook.counts, np.ones((G, K)))
        np.testing.assert_array_equal(codebook.sums, codebook.embeddings)
        assert np.abs(codebook.embeddings).max() <= 1 / K
        assert np.abs(codebook.embeddings).max() > 0.8 / K

    @pytest.mark.parametrize("wrong", ["num_codes", "dim", "num_codebooks"])
    def test_refuses_empty_sizes(self, wrong):
        sizes = {"num_codes": 2, "dim": 2, "num_codebooks": 2, wrong: 0}
        with pytest.raises(ValueError, match="at least 1"):
            quantizers.init(jax.random.key(0), **sizes)


class TestQuantize:
    def test_codes_rows_and_losses_equal_numpy(
        self, codebook, z_e, oracle_codes, oracle_rows
    ):
        out = quantizers.quantize(codebook, z_e)
        codes = oracle_codes(codebook.embeddings, z_e)
        rows = oracle_rows(codebook.embeddings, codes)
        z = np.asarray(z_e, np.float64).reshape(rows.shape)
        norms = ((z - rows) ** 2).sum(-1)
        np.testing.assert_array_equal(out.codes, codes)
        np.testing.assert_array_equal(out.z_q, rows.reshape(z_e.shape).astype("f4"))
        # [1] The norm sums over D: averaging would be D times too small.
        np.testing.assert_allclose(out.codebook_loss, norms, rtol=1e-5)
        np.testing.assert_allclose(out.commitment_loss, norms, rtol=1e-5)

    def test_each_loss_has_one_owner(self, codebook, z_e, oracle_codes, oracle_rows):
        """[1, 2] Gradients of each term alone, for the encoder and the codebook."""
        codes = oracle_codes(codebook.embeddings, z_e)
        rows = oracle_rows(codebook.embeddings, codes)
        z = np.asarray(z_e, np.float64).reshape(rows.shape)
        to_rows = np.zeros(codebook.embeddings.shape)
        for place in np.ndindex(codes.shape):
            to_rows[place[-1], codes[place]] += 2 * (rows[place] - z[place])

        def gradient(term):
            def total(embeddings, z_e):
                out = quantizers.quantize(codebook._replace(embeddings=embeddings), z_e)
                return getattr(out, term).sum()

            return jax.grad(total, argnums=(0, 1))(codebook.embeddings, z_e)

        for_codebook, for_encoder = gradient("codebook_loss")
        np.testing.assert_allclose(for_codebook, to_rows, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(for_encoder, np.zeros(z_e.shape))
        for_codebook, for_encoder = gradient("commitment_loss")
        np.testing.assert_array_equal(for_codebook, np.zeros_like(to_rows))
        expected = (2 * (z - rows)).reshape(z_e.shape)
        np.testing.assert_allclose(for_encoder, expected, rtol=1e-4, atol=1e-5)

    def test_reconstruction_gradient_passes_straight_through(self, codebook, z_e):
        """[2] d f(z_q) / d z_e is f'(z_q); nothing of it reaches the codebook."""
        weights = jnp.asarray(np.random.default_rng(3).normal(size=z_e.shape), "f4")

        def f(embeddings, z_e):
            out = quantizers.quantize(codebook._replace(embeddings=embeddings), z_e)
            return jnp.sum(weights * out.z_q**2)

        for_codebook, for_encoder = jax.grad(f, (0, 1))(codebook.embeddings, z_e)
        z_q = quantizers.quantize(codebook, z_e).z_q
        np.testing.assert_allclose(for_encoder, 2 * weights * z_q, rtol=1e-5)
        zeros = np.zeros(codebook.embeddings.shape)
        np.testing.assert_array_equal(for_codebook, zeros)

    def test_mask_zeroes_losses_and_their_gradients(self, codebook, z_e, mask):
        """[10, 11] Also where padding holds NaN, and with several codebooks."""
        padded = jnp.where(mask[..., None], z_e, jnp.nan)
        out = quantizers.quantize(codebook, padded, mask)
        clean = quantizers.quantize(codebook, z_e)

        def gradients(name, z_e, mask=None):
            def total(embeddings, z_e):
                replaced = codebook._replace(embeddings=embeddings)
                return getattr(quantizers.quantize(replaced, z_e, mask), name).sum()

            return jax.grad(total, argnums=(0, 1))(codebook.embeddings, z_e)

        for name in ("codebook_loss", "commitment_loss"):
            expected = np.where(mask[..., None], getattr(clean, name), 0.0)
            np.testing.assert_array_equal(getattr(out, name), expected)
            for_rows, for_z_e = gradients(name, padded, mask)
            valid_rows, valid_z_e = gradients(name, z_e[mask])
            np.testing.assert_allclose(for_rows, valid_rows, rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(for_z_e[mask], valid_z_e, rtol=1e-5)
            assert not for_z_e[~mask].any()
        np.testing.assert_array_equal(out.codes[mask], clean.codes[mask])

    def test_rejects_a_wrong_last_axis(self, codebook):
        with pytest.raises(ValueError, match=r"3 codebooks x 4 = 12.*\(2, 11\)"):
            quantizers.quantize(codebook, jnp.zeros((2, 11)))
        with pytest.raises(ValueError, match="3 codebooks"):
            quantizers.lookup(codebook, jnp.zeros((2, 2), jnp.int32))

    def test_rejects_a_mask_of_other_vectors(self):
        """One of the batch alone fits the last axis of a square grid."""
        grid = jnp.zeros((8, 8, 8, 4))
        require_mask(None, grid)
        require_mask(jnp.ones((8, 8, 8), bool), grid)
        with pytest.raises(ValueError, match=r"mask must .* \(8, 8, 8\).*got \(8,\)"):
            require_mask(jnp.ones(8, bool), grid)

    def test_ties_go_to_the_lower_index(self):
        codebook = quantizers.from_embeddings(jnp.zeros((1, 4, 2)))
        assert quantizers.quantize(codebook, jnp.ones((3, 2))).codes.max() == 0

    def test_lookup_inverts_codes(self, codebook, z_e):
        out = quantizers.quantize(codebook, z_e)
        np.testing.assert_array_equal(quantizers.lookup(codebook, out.codes), out.z_q)
