"""The cosine distance: unit vectors and unit rows, against float64 NumPy.

Numbers in brackets are rows of the list of known defects in docs/conformance.md.
"""

import dataclasses
import os
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqvae_jax.quantizers import VQ

KEY = jax.random.key(0)


def unit(x):
    x = np.asarray(x, np.float64)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.fixture
def cosine(vq):
    """A VQ of the sizes of `codebook` with the cosine distance."""
    return dataclasses.replace(vq, distance="cosine")


@pytest.fixture
def oracle(codebook, z_e):
    """Unit vectors, unit rows of their codes, both `[..., G, D]`, and the codes."""
    G, _, D = codebook.embeddings.shape
    z, e = unit(np.asarray(z_e).reshape(*z_e.shape[:-1], G, D)), codebook.embeddings
    cosines = np.einsum("...gd,gkd->...gk", z, unit(e))
    codes = cosines.argmax(-1)
    return z, unit(e)[np.arange(G), codes], codes


class TestQuantize:
    def test_codes_rows_and_losses_equal_numpy(self, cosine, codebook, z_e, oracle):
        """[29] Terms are 2 - 2 cos."""
        z, rows, codes = oracle
        out = cosine.quantize(codebook, z_e)
        np.testing.assert_array_equal(out.codes, codes)
        np.testing.assert_allclose(out.z_q, rows.reshape(z_e.shape), atol=1e-6)
        losses = 2 - 2 * (z * rows).sum(-1)
        np.testing.assert_allclose(out.losses["codebook"], losses, rtol=1e-4)
        np.testing.assert_allclose(out.losses["commitment"], losses, rtol=1e-4)

    def test_each_loss_has_the_gradient_of_its_owner(
        self, cosine, codebook, z_e, oracle
    ):
        """[1, 2] Orthogonal to the vector: (I - x^ x^') / |x| of -2 y^."""
        z, rows, codes = oracle

        def f(embeddings, z_e, term):
            out = cosine.quantize(codebook._replace(embeddings=embeddings), z_e)
            return out.losses[term].sum()

        gradient = jax.grad(f, (0, 1))
        for_codebook, for_z_e = gradient(codebook.embeddings, z_e, "commitment")
        lengths = np.linalg.norm(np.asarray(z_e).reshape(z.shape), axis=-1)[..., None]
        cosines = (z * rows).sum(-1, keepdims=True)
        expected = -2 * (rows - cosines * z) / lengths
        np.testing.assert_allclose(
            for_z_e, expected.reshape(z_e.shape), rtol=1e-4, atol=1e-5
        )
        assert not for_codebook.any()
        for_codebook, for_z_e = gradient(codebook.embeddings, z_e, "codebook")
        lengths = np.linalg.norm(codebook.embeddings, axis=-1)
        expected = np.zeros(codebook.embeddings.shape)
        for i in np.ndindex(codes.shape):
            slope = -2 * (z[i] - cosines[i] * rows[i]) / lengths[i[-1], codes[i]]
            expected[i[-1], codes[i]] += slope
        np.testing.assert_allclose(for_codebook, expected, rtol=1e-4, atol=1e-5)
        assert not for_z_e.any()

    def test_reconstruction_gradient_goes_through_the_normalisation(
        self, cosine, codebook, z_e, oracle
    ):
        """Straight-through from the unit row to the unit vector."""
        z, _, _ = oracle
        g = np.random.default_rng(3).normal(size=z.shape)
        weights = jnp.asarray(g.reshape(z_e.shape), "float32")
        for_z_e = jax.grad(
            lambda z_e: jnp.sum(weights * cosine.quantize(codebook, z_e).z_q)
        )(z_e)
        lengths = np.linalg.norm(np.asarray(z_e).reshape(z.shape), axis=-1)[..., None]
        expected = (g - z * (z * g).sum(-1, keepdims=True)) / lengths
        np.testing.assert_allclose(
            for_z_e, expected.reshape(z_e.shape), rtol=1e-4, atol=1e-5
        )

    @pytest.mark.parametrize("scale", [1e-25, 1e-3, 1e3, 1e25])
    def test_lengths_change_nothing(self, cosine, codebook, z_e, scale):
        """Squares of 1e25 are infinite in float32, those of 1e-25 zero."""
        expected = cosine.quantize(codebook, z_e)
        scaled = codebook._replace(embeddings=codebook.embeddings / scale)
        found = cosine.quantize(scaled, scale * z_e)
        np.testing.assert_array_equal(found.codes, expected.codes)
        np.testing.assert_allclose(found.z_q, expected.z_q, rtol=1e-5)
        np.testing.assert_allclose(found.loss, expected.loss, rtol=1e-3, atol=1e-5)

    def test_a_vector_of_zeros_passes_gradients_unchanged(self, cosine, codebook):
        """An encoder that starts from zeros can leave them."""
        z_e = jnp.zeros((5, cosine.features))
        weights = np.random.default_rng(0).normal(size=z_e.shape).astype("float32")
        gradient = jax.grad(
            lambda z_e: jnp.sum(weights * cosine.quantize(codebook, z_e).z_q)
        )(z_e)
        np.testing.assert_array_equal(gradient, weights)

    def test_codebooks_and_lookup_are_unit_rows(self, cosine, codebook):
        np.testing.assert_allclose(
            cosine.codebooks(codebook), unit(codebook.embeddings), atol=1e-6
        )
        codes = jnp.array([[1, 2, 3]])
        expected = unit(codebook.embeddings)[np.arange(3), codes[0]].reshape(1, -1)
        np.testing.assert_allclose(cosine.lookup(codebook, codes), expected, atol=1e-6)


def test_lookup_equals_z_q_in_optimised_programs():
    """[26] Of a training step, whose gradient changes how XLA rounds a division."""
    script = textwrap.dedent(
        """
        import jax, jax.numpy as jnp
        from vqvae_jax import quantizers

        KEY = jax.random.key(0)
        for update in ("loss", "ema", "gradient"):
            vq = quantizers.VQ(
                num_codes=33, dim=17, num_codebooks=2, distance="cosine",
                codebook_update=update, codebook_init="uniform", entropy_weight=0.1,
            )
            z_e = jax.random.normal(KEY, (64, vq.features))

            def loss(state):
                out = vq.quantize(state, z_e)
                return out.loss.sum() + jnp.sin(out.z_q).sum(), out

            @jax.jit
            def step(state):
                gradient, out = jax.grad(loss, has_aux=True)(state)
                moved = state.embeddings - 0.01 * gradient.embeddings
                moved = state._replace(embeddings=moved)
                return out, vq.update(moved, z_e, out.codes, key=KEY)

            state = vq.init(KEY)
            for _ in range(3):
                out, after = step(state)
                for lookup in (vq.lookup, jax.jit(vq.lookup)):
                    assert (lookup(state, out.codes) == out.z_q).all(), update
                state = after
        """
    )
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)


class TestStatistics:
    """Spherical k-means: unit vectors are summed, and their mean normalised."""

    def test_updates_equal_numpy(self, cosine, codebook):
        """[3, 4] Of 30 updates by EMA; rows keep length 1."""
        G, K, D = codebook.embeddings.shape
        ema = dataclasses.replace(cosine, codebook_update="ema", ema_decay=0.9)
        update = jax.jit(ema.update)
        codebook = ema.init(KEY)
        counts, sums = (np.array(x, np.float64) for x in codebook[1:])
        rng = np.random.default_rng(0)
        for _ in range(30):
            z_e = rng.normal(size=(40, G * D)) * np.exp(rng.normal(size=(40, 1)))
            z_e = jnp.asarray(z_e, "float32")
            codes = ema.quantize(codebook, z_e).codes
            codebook = update(codebook, z_e, codes, key=KEY)
            n, m = np.zeros((G, K)), np.zeros((G, K, D))
            z = unit(np.asarray(z_e).reshape(40, G, D))
            for i, g in np.ndindex(40, G):
                n[g, codes[i, g]] += 1
                m[g, codes[i, g]] += z[i, g]
            counts, sums = 0.9 * counts + 0.1 * n, 0.9 * sums + 0.1 * m
        np.testing.assert_allclose(codebook.counts, counts, rtol=1e-4)
        np.testing.assert_allclose(codebook.sums, sums, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(codebook.embeddings, unit(sums), atol=1e-4)

    def test_kmeans_finds_directions(self):
        """Of vectors whose lengths differ by factors of a thousand."""
        rng = np.random.default_rng(0)
        directions = np.concatenate([np.eye(3), -np.eye(3)])
        points = directions[rng.integers(6, size=600)] + 0.1 * rng.normal(size=(600, 3))
        points *= 10.0 ** rng.uniform(-3, 0, size=(600, 1))
        vq = VQ(num_codes=12, dim=3, distance="cosine")
        codebook = vq.init(KEY, jnp.asarray(points, "float32"))
        rows = np.asarray(codebook.embeddings[0])
        np.testing.assert_allclose(np.linalg.norm(rows, axis=-1), 1.0, rtol=1e-5)
        np.testing.assert_array_equal(codebook.sums, codebook.embeddings)
        assert (directions @ rows.T).max(axis=1).min() > 0.98

    @pytest.mark.parametrize("codebook_init", ["uniform", "kmeans"])
    def test_initial_rows_have_length_1(self, cosine, z_e, codebook_init):
        """[3] So that the first vectors do not outweigh the initial sums."""
        vq = dataclasses.replace(cosine, codebook_init=codebook_init)
        codebook = vq.init(KEY, z_e)
        for rows in (codebook.embeddings, codebook.sums):
            np.testing.assert_allclose(np.linalg.norm(rows, axis=-1), 1.0, rtol=1e-5)

    @pytest.mark.parametrize("codebook_update", ["loss", "ema", "gradient"])
    def test_dead_codes_restart_from_unit_vectors(self, cosine, z_e, codebook_update):
        """[5] Count and sum restart with the row."""
        vq = dataclasses.replace(
            cosine, codebook_update=codebook_update, dead_code_threshold=0.995
        )
        codes = jnp.zeros((*z_e.shape[:-1], 3), jnp.int32)
        after = vq.update(vq.init(KEY), 100 * z_e, codes, key=KEY)
        vectors = unit(np.asarray(z_e).reshape(-1, 3, 4))
        for g in range(3):
            restarted = np.asarray(after.embeddings)[g, 1:]
            gaps = np.abs(vectors[:, None, g] - restarted).max(axis=-1).min(axis=0)
            assert gaps.max() < 1e-6
        np.testing.assert_array_equal(after.sums[:, 1:], after.embeddings[:, 1:])
