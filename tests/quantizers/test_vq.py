"""VQ against NumPy: initial statistics, codes, losses and their gradients.

Numbers in brackets are rows of the list of known defects in docs/conformance.md.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqvae_jax import quantizers
from vqvae_jax.quantizers import VQ


class TestInit:
    def test_statistics_start_at_one_use_of_each_code(self, vq):
        G, K, D = 3, 7, 4
        codebook = vq.init(jax.random.key(0))
        assert codebook.embeddings.shape == (G, K, D)
        np.testing.assert_array_equal(codebook.counts, np.ones((G, K)))
        np.testing.assert_array_equal(codebook.sums, codebook.embeddings)
        assert np.abs(codebook.embeddings).max() <= 1 / K
        assert np.abs(codebook.embeddings).max() > 0.8 / K

    @pytest.mark.parametrize("wrong", ["num_codes", "dim", "num_codebooks"])
    def test_rejects_empty_sizes(self, wrong):
        sizes = {"num_codes": 2, "dim": 2, "num_codebooks": 2, wrong: 0}
        with pytest.raises(ValueError, match=f"{wrong} must be >= 1, got 0"):
            VQ(**sizes)


class TestQuantize:
    def test_codes_rows_and_losses_equal_numpy(
        self, vq, codebook, z_e, oracle_codes, oracle_rows
    ):
        out = vq.quantize(codebook, z_e)
        codes = oracle_codes(codebook.embeddings, z_e)
        rows = oracle_rows(codebook.embeddings, codes)
        z = np.asarray(z_e, np.float64).reshape(rows.shape)
        squares = ((z - rows) ** 2).mean(-1)
        np.testing.assert_array_equal(out.codes, codes)
        np.testing.assert_array_equal(out.z_q, rows.reshape(z_e.shape).astype("f4"))
        # [1] A mean over D: with a sum, beta would weigh D times as much.
        np.testing.assert_allclose(out.losses["codebook"], squares, rtol=1e-5)
        np.testing.assert_allclose(out.losses["commitment"], squares, rtol=1e-5)

    def test_each_loss_has_the_gradient_of_its_owner(
        self, vq, codebook, z_e, oracle_codes, oracle_rows
    ):
        """[1, 2] Gradients of each term alone, for the encoder and the codebook."""
        codes = oracle_codes(codebook.embeddings, z_e)
        rows = oracle_rows(codebook.embeddings, codes)
        z = np.asarray(z_e, np.float64).reshape(rows.shape)
        to_rows = np.zeros(codebook.embeddings.shape)
        for index in np.ndindex(codes.shape):
            slope = 2 * (rows[index] - z[index]) / vq.dim
            to_rows[index[-1], codes[index]] += slope

        def gradient(term):
            def total(embeddings, z_e):
                out = vq.quantize(codebook._replace(embeddings=embeddings), z_e)
                return out.losses[term].sum()

            return jax.grad(total, argnums=(0, 1))(codebook.embeddings, z_e)

        for_codebook, for_encoder = gradient("codebook")
        np.testing.assert_allclose(for_codebook, to_rows, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(for_encoder, np.zeros(z_e.shape))
        for_codebook, for_encoder = gradient("commitment")
        np.testing.assert_array_equal(for_codebook, np.zeros_like(to_rows))
        expected = (2 * (z - rows) / vq.dim).reshape(z_e.shape)
        np.testing.assert_allclose(for_encoder, expected, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize(
        ("codebook_update", "weights"), [("loss", (1.0, 0.5)), ("ema", (0.0, 0.5))]
    )
    def test_total_loss_weighs_the_terms(self, codebook_update, weights):
        """Equation 3; the EMA replaces the codebook loss (appendix A.1)."""
        vq = VQ(beta=0.5, codebook_update=codebook_update)
        terms = {"codebook": 3.0, "commitment": 5.0}
        expected = weights[0] * 3.0 + weights[1] * 5.0
        assert vq.total_loss(terms) == pytest.approx(expected)

    def test_rejects_a_wrong_last_axis(self, vq, codebook):
        with pytest.raises(ValueError, match=r"3 codebooks x 4 = 12.*\(2, 11\)"):
            vq.quantize(codebook, jnp.zeros((2, 11)))
        with pytest.raises(ValueError, match="3 codebooks"):
            vq.lookup(codebook, jnp.zeros((2, 2), jnp.int32))

    def test_ties_go_to_the_lower_index(self):
        vq = VQ(num_codes=4, dim=2)
        codebook = quantizers.from_embeddings(jnp.zeros((1, 4, 2)))
        assert vq.quantize(codebook, jnp.ones((3, 2))).codes.max() == 0


def test_the_gradient_moves_embeddings_only_without_ema():
    for codebook_update, moves in (("loss", True), ("ema", False)):
        vq = VQ(codebook_update=codebook_update, codebook_init="uniform")
        trainable = vq.trainable(vq.init(jax.random.key(0)))
        assert trainable == quantizers.Codebook(moves, False, False)


def test_hessian_of_the_codebook_loss(vq, codebook, z_e):
    """2 n / D on the diagonal, for n uses of a code."""
    codes = vq.quantize(codebook, z_e).codes

    def loss(embeddings):
        out = vq.quantize(codebook._replace(embeddings=embeddings), z_e)
        return out.losses["codebook"].sum()

    size = codebook.embeddings.size
    hessian = jax.hessian(loss)(codebook.embeddings).reshape(size, size)
    uses = np.stack([np.bincount(codes[..., g].ravel(), minlength=7) for g in range(3)])
    expected = np.diag(np.repeat(2 * uses.ravel() / vq.dim, vq.dim))
    np.testing.assert_allclose(hessian, expected, rtol=1e-5, atol=1e-5)
