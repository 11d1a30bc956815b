"""EMA updates, counts and usage, against NumPy.

Numbers in brackets are rows of the list of known defects in docs/conformance.md.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqvae_jax import quantizers
from vqvae_jax.quantizers import VQ, Codebook, ema

KEY = jax.random.key(0)


def vq(num_codes=7, dim=4, num_codebooks=3, codebook_update="ema", ema_decay=0.99):
    """Return a VQ that starts from uniform codebooks."""
    return VQ(
        num_codes=num_codes,
        dim=dim,
        num_codebooks=num_codebooks,
        codebook_update=codebook_update,
        ema_decay=ema_decay,
        codebook_init="uniform",
    )


class TestEma:
    def test_hundred_updates_equal_equations_6_to_8(
        self, codebook, oracle_ema, assert_codebooks_close
    ):
        """[4] Nothing is smoothed into the state."""
        G, _, D = codebook.embeddings.shape
        rng = np.random.default_rng(5)
        update = jax.jit(functools.partial(vq().update, key=KEY))
        ours, expected = codebook, codebook
        for _ in range(100):
            z_e = jnp.asarray(rng.normal(size=(40, G * D)), "float32")
            codes = vq().quantize(ours, z_e).codes
            ours = update(ours, z_e, codes)
            expected = Codebook(
                *oracle_ema(expected, z_e, np.asarray(codes), decay=0.99)
            )
        assert_codebooks_close(ours, expected)

    def test_unused_codes_do_not_move(self):
        """[3] One step from a fresh codebook keeps 500 unused codes."""
        ema = vq(num_codes=512, dim=8, num_codebooks=1)
        codebook = ema.init(KEY)
        z_e = jax.random.normal(jax.random.key(1), (12, 8))
        codes = ema.quantize(codebook, z_e).codes
        after = ema.update(codebook, z_e, codes, key=KEY)
        unused = np.setdiff1d(np.arange(512), np.asarray(codes))
        moved = np.abs(after.embeddings - codebook.embeddings)[0, unused]
        assert len(unused) >= 500
        assert moved.max() < 1e-6

    def test_codes_that_are_never_used_stay_finite_and_do_not_move(self, codebook):
        z_e = codebook.embeddings[:, 0].reshape(1, -1)
        codes = jnp.zeros((1, len(codebook.embeddings)), jnp.int32)
        ema = vq(ema_decay=0.9)

        def update(book, _):
            return ema.update(book, z_e, codes, key=KEY), None

        after, _ = jax.lax.scan(update, codebook, length=5000)
        assert all(np.isfinite(x).all() for x in after)
        np.testing.assert_allclose(after.embeddings, codebook.embeddings, atol=1e-5)

    def test_padding_changes_nothing(
        self, codebook, z_e, mask, oracle_ema, assert_codebooks_close
    ):
        """[10, 11] Statistics with a mask are those of the valid vectors."""
        codes = vq().quantize(codebook, z_e).codes
        padded = jnp.where(mask[..., None], z_e, jnp.nan)
        update = functools.partial(vq().update, codebook, key=KEY)
        ours = update(padded, codes, mask=mask)
        alone = update(z_e[mask], codes[mask])
        assert_codebooks_close(ours, alone, 1e-6)
        expected = oracle_ema(codebook, z_e, np.asarray(codes), 0.99, np.asarray(mask))
        assert_codebooks_close(ours, expected)

    def test_counts_follow_usage_while_a_loss_moves_embeddings(
        self, codebook, z_e, oracle_ema
    ):
        by_loss = vq(codebook_update="loss", ema_decay=0.9)
        codes = by_loss.quantize(codebook, z_e).codes
        ours = by_loss.update(codebook, z_e, codes, key=KEY)
        counts = oracle_ema(codebook, z_e, np.asarray(codes), 0.9)[1]
        np.testing.assert_array_equal(ours.embeddings, codebook.embeddings)
        np.testing.assert_allclose(ours.counts, counts, rtol=1e-6)
        np.testing.assert_allclose(
            ours.sums, codebook.embeddings * counts[..., None], rtol=1e-5
        )


class TestUsage:
    def test_counts_perplexity_and_active_codes(self, mask):
        """[12] Counts of batches add up; perplexity is computed from their sum."""
        G, K = 3, 7
        rng = np.random.default_rng(0)
        codes = rng.integers(K, size=(*mask.shape, G))
        counts = quantizers.usage(jnp.asarray(codes), num_codes=K, mask=mask)
        valid = codes[np.asarray(mask)]
        expected = np.stack([np.bincount(valid[:, g], minlength=K) for g in range(G)])
        np.testing.assert_array_equal(counts, expected)
        p = expected / expected.sum(-1, keepdims=True)
        entropy = -np.sum(p * np.log(np.where(p > 0, p, 1)), axis=-1)
        np.testing.assert_allclose(
            quantizers.perplexity(counts), np.exp(entropy), rtol=1e-5
        )
        np.testing.assert_array_equal(
            quantizers.active_codes(counts), (expected > 0).sum(-1)
        )

    def test_ignores_the_code_of_a_dropped_level(self):
        """[32] Of whole vectors and of single codebooks, masked or not."""
        codes = jnp.array([[0, 2], [2, -1], [-1, -1], [2, 1]])
        expected = [[1, 0, 2], [0, 1, 1]]
        np.testing.assert_array_equal(quantizers.usage(codes, num_codes=3), expected)
        mask = jnp.array([True, True, True, False])
        counts = quantizers.usage(codes, num_codes=3, mask=mask)
        np.testing.assert_array_equal(counts, [[1, 0, 1], [0, 0, 1]])

    @pytest.mark.parametrize("count", [3.0, 0.01])
    def test_perplexity_of_uniform_usage_is_k(self, count):
        """Running counts may be below 1."""
        counts = jnp.full((7,), count)
        assert float(quantizers.perplexity(counts)) == pytest.approx(7)

    def test_perplexity_of_no_usage_is_1(self):
        assert float(quantizers.perplexity(jnp.zeros(7))) == 1


@pytest.mark.parametrize("decay", [2.0, 1.0, -0.1, float("nan")])
@pytest.mark.parametrize("update", ["ema_update", "count_update"])
def test_a_decay_that_diverges_raises(update, decay):
    codebook = quantizers.VQ(num_codes=4, dim=2, codebook_init="uniform").init(
        jax.random.key(0)
    )
    codes = jnp.zeros((3, 1), jnp.int32)
    arguments = {"ema_update": (jnp.ones((3, 2)), codes), "count_update": (codes,)}
    call = getattr(ema, update)
    with pytest.raises(ValueError, match=r"decay must be in \[0, 1\), got"):
        call(codebook, *arguments[update], decay=decay)
    # A schedule is only known under jit.
    jax.jit(lambda d: call(codebook, *arguments[update], decay=d))(0.5)
