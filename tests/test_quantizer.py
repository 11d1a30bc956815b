"""The quantizer against NumPy: values, gradients, statistics, transforms, memory.

Numbers in brackets are rows of the list of known defects in docs/conformance.md.
"""

import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vqvae_jax import quantizer
from vqvae_jax.quantizer import Codebook

G, K, D = 3, 7, 4
SHAPE = (2, 5, 3)


@pytest.fixture
def codebook() -> Codebook:
    rng = np.random.default_rng(0)
    return quantizer.from_embeddings(jnp.asarray(rng.normal(size=(G, K, D)), "float32"))


@pytest.fixture
def z_e():
    rng = np.random.default_rng(1)
    return jnp.asarray(rng.normal(size=(*SHAPE, G * D)), "float32")


@pytest.fixture
def mask():
    return jnp.asarray(np.random.default_rng(2).random(SHAPE) < 0.6)


def oracle_codes(embeddings, z_e):
    """Squared distances one by one, in float64."""
    e = np.asarray(embeddings, np.float64)
    z = np.asarray(z_e, np.float64).reshape(*z_e.shape[:-1], len(e), -1)
    distances = ((z[..., None, :] - e) ** 2).sum(-1)
    return distances.argmin(-1)


def oracle_rows(embeddings, codes):
    e = np.asarray(embeddings, np.float64)
    return np.stack([e[g][codes[..., g]] for g in range(len(e))], axis=-2)


def oracle_ema(codebook, z_e, codes, decay, mask=None):
    """Equations 6 to 8 with Python loops, in float64."""
    counts, sums = (np.array(x, np.float64) for x in (codebook.counts, codebook.sums))
    n, z = np.zeros_like(counts), np.zeros_like(sums)
    vectors = np.asarray(z_e, np.float64).reshape(*codes.shape, -1)
    for place in np.ndindex(codes.shape[:-1]):
        if mask is not None and not mask[place]:
            continue
        for g in range(codes.shape[-1]):
            n[g, codes[(*place, g)]] += 1
            z[g, codes[(*place, g)]] += vectors[(*place, g)]
    counts = decay * counts + (1 - decay) * n
    sums = decay * sums + (1 - decay) * z
    return sums / counts[..., None], counts, sums


def assert_codebooks_close(actual: Codebook, expected, tolerance=1e-5):
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=tolerance, rtol=tolerance)


def assert_equal_on_all_devices(stacked: Codebook, expected: Codebook):
    for device in range(8):
        assert_codebooks_close([x[device] for x in stacked], expected)


class TestInit:
    def test_statistics_start_at_one_use_each(self):
        codebook = quantizer.init(
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
            quantizer.init(jax.random.key(0), **sizes)


class TestQuantize:
    def test_codes_rows_and_losses_equal_numpy(self, codebook, z_e):
        out = quantizer.quantize(codebook, z_e)
        codes = oracle_codes(codebook.embeddings, z_e)
        rows = oracle_rows(codebook.embeddings, codes)
        z = np.asarray(z_e, np.float64).reshape(rows.shape)
        norms = ((z - rows) ** 2).sum(-1)
        np.testing.assert_array_equal(out.codes, codes)
        np.testing.assert_array_equal(out.z_q, rows.reshape(z_e.shape).astype("f4"))
        # [1] The norm sums over D: averaging would be D times too small.
        np.testing.assert_allclose(out.codebook_loss, norms, rtol=1e-5)
        np.testing.assert_allclose(out.commitment_loss, norms, rtol=1e-5)

    def test_each_loss_has_one_owner(self, codebook, z_e):
        """[1, 2] Gradients of each term alone, for the encoder and the codebook."""
        codes = oracle_codes(codebook.embeddings, z_e)
        rows = oracle_rows(codebook.embeddings, codes)
        z = np.asarray(z_e, np.float64).reshape(rows.shape)
        to_rows = np.zeros((G, K, D))
        for place in np.ndindex(codes.shape):
            to_rows[place[-1], codes[place]] += 2 * (rows[place] - z[place])

        def gradient(term):
            def total(embeddings, z_e):
                out = quantizer.quantize(codebook._replace(embeddings=embeddings), z_e)
                return getattr(out, term).sum()

            return jax.grad(total, argnums=(0, 1))(codebook.embeddings, z_e)

        for_codebook, for_encoder = gradient("codebook_loss")
        np.testing.assert_allclose(for_codebook, to_rows, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(for_encoder, np.zeros(z_e.shape))
        for_codebook, for_encoder = gradient("commitment_loss")
        np.testing.assert_array_equal(for_codebook, np.zeros((G, K, D)))
        expected = (2 * (z - rows)).reshape(z_e.shape)
        np.testing.assert_allclose(for_encoder, expected, rtol=1e-4, atol=1e-5)

    def test_reconstruction_gradient_passes_straight_through(self, codebook, z_e):
        """[2] d f(z_q) / d z_e is f'(z_q); nothing of it reaches the codebook."""
        weights = jnp.asarray(np.random.default_rng(3).normal(size=z_e.shape), "f4")

        def f(embeddings, z_e):
            out = quantizer.quantize(codebook._replace(embeddings=embeddings), z_e)
            return jnp.sum(weights * out.z_q**2)

        for_codebook, for_encoder = jax.grad(f, (0, 1))(codebook.embeddings, z_e)
        z_q = quantizer.quantize(codebook, z_e).z_q
        np.testing.assert_allclose(for_encoder, 2 * weights * z_q, rtol=1e-5)
        np.testing.assert_array_equal(for_codebook, np.zeros((G, K, D)))

    def test_mask_zeroes_losses_and_their_gradients(self, codebook, z_e, mask):
        """[10, 11] Also where padding holds NaN, and with several codebooks."""
        padded = jnp.where(mask[..., None], z_e, jnp.nan)
        out = quantizer.quantize(codebook, padded, mask)
        clean = quantizer.quantize(codebook, z_e)
        for name in ("codebook_loss", "commitment_loss"):
            expected = np.where(mask[..., None], getattr(clean, name), 0.0)
            np.testing.assert_array_equal(getattr(out, name), expected)
        np.testing.assert_array_equal(out.codes[mask], clean.codes[mask])

    def test_rejects_a_wrong_last_axis(self, codebook):
        with pytest.raises(ValueError, match=r"3 codebooks x 4 = 12.*\(2, 11\)"):
            quantizer.quantize(codebook, jnp.zeros((2, 11)))
        with pytest.raises(ValueError, match="3 codebooks"):
            quantizer.lookup(codebook, jnp.zeros((2, 2), jnp.int32))

    def test_ties_go_to_the_lower_index(self):
        codebook = quantizer.from_embeddings(jnp.zeros((1, 4, 2)))
        assert quantizer.quantize(codebook, jnp.ones((3, 2))).codes.max() == 0

    def test_lookup_inverts_codes(self, codebook, z_e):
        out = quantizer.quantize(codebook, z_e)
        np.testing.assert_array_equal(quantizer.lookup(codebook, out.codes), out.z_q)


class TestNearest:
    def test_chunks_change_nothing(self, monkeypatch):
        rng = np.random.default_rng(0)
        e = jnp.asarray(rng.normal(size=(2, 16, 3)), "float32")
        vectors = jnp.asarray(rng.normal(size=(5, 23, 2, 3)), "float32")
        whole = quantizer.nearest(e, vectors)
        for chunk in (1, 7, 50, 114):
            monkeypatch.setattr(quantizer, "_CHUNK_BYTES", 4 * 16 * chunk)
            np.testing.assert_array_equal(quantizer.nearest(e, vectors), whole)
        np.testing.assert_array_equal(whole, oracle_codes(e, vectors.reshape(5, 23, 6)))

    def test_bfloat16_inputs_find_float32s_codes(self):
        """[8] A crowded codebook: bfloat16 distances would not tell its codes apart."""
        rng = np.random.default_rng(0)
        e = jnp.asarray(10 + rng.normal(size=(1, 512, 64)), "float32")
        z = jnp.asarray(10 + rng.normal(size=(300, 1, 64)), jnp.bfloat16)
        codes = np.asarray(quantizer.nearest(e, z))
        expected = oracle_codes(e, np.asarray(z, np.float32)[:, 0])
        np.testing.assert_array_equal(codes, expected)

    def test_distances_ask_for_the_highest_precision(self):
        """[8] TPUs multiply float32 in fewer bits unless told not to."""
        jaxpr = str(
            jax.make_jaxpr(quantizer.nearest)(
                jnp.zeros((1, 8, 4)), jnp.zeros((5, 1, 4), jnp.bfloat16)
            )
        )
        assert "HIGHEST" in jaxpr
        assert "bf16[8" not in jaxpr

    def test_memory_stays_bounded(self):
        """[9] N = 65 536, K = 8192, D = 64 under 1 GiB, gradient and EMA included."""
        script = textwrap.dedent(
            """
            import resource, jax, jax.numpy as jnp
            from vqvae_jax import quantizer
            codebook = quantizer.init(jax.random.key(0), num_codes=8192, dim=64)
            z_e = jax.random.normal(jax.random.key(1), (65536, 64)) / 8192
            jax.block_until_ready(z_e)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

            @jax.jit
            def step(codebook, z_e):
                def f(e, z):
                    out = quantizer.quantize(codebook._replace(embeddings=e), z)
                    loss = out.commitment_loss.sum() + out.codebook_loss.sum()
                    return loss + (out.z_q ** 2).sum(), out.codes
                g, codes = jax.grad(f, (0, 1), has_aux=True)(codebook.embeddings, z_e)
                return g, quantizer.ema_update(codebook, z_e, codes)

            jax.block_until_ready(step(codebook, z_e))
            after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            print((after - before) / 1024)
            """
        )
        out = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True
        )
        assert float(out.stdout) < 1024


class TestEma:
    def test_hundred_updates_equal_equations_6_to_8(self, codebook):
        """[4] Nothing is smoothed into the state."""
        rng = np.random.default_rng(5)
        ours, expected = codebook, codebook
        for _ in range(100):
            z_e = jnp.asarray(rng.normal(size=(40, G * D)), "float32")
            codes = quantizer.quantize(ours, z_e).codes
            ours = quantizer.ema_update(ours, z_e, codes, decay=0.99)
            expected = Codebook(
                *oracle_ema(expected, z_e, np.asarray(codes), decay=0.99)
            )
        assert_codebooks_close(ours, expected)

    def test_unused_codes_do_not_move(self):
        """[3] One step from a fresh codebook leaves 500 unused codes alone."""
        codebook = quantizer.init(jax.random.key(0), num_codes=512, dim=8)
        z_e = jax.random.normal(jax.random.key(1), (12, 8))
        codes = quantizer.quantize(codebook, z_e).codes
        after = quantizer.ema_update(codebook, z_e, codes)
        unused = np.setdiff1d(np.arange(512), np.asarray(codes))
        moved = np.abs(after.embeddings - codebook.embeddings)[0, unused]
        assert len(unused) >= 500
        assert moved.max() < 1e-6

    def test_codes_unused_for_ever_stay_finite_and_put(self, codebook):
        z_e = codebook.embeddings[:, 0].reshape(1, -1)
        codes = jnp.zeros((1, G), jnp.int32)

        def update(book, _):
            return quantizer.ema_update(book, z_e, codes, decay=0.9), None

        after, _ = jax.lax.scan(update, codebook, length=5000)
        assert all(np.isfinite(x).all() for x in after)
        np.testing.assert_allclose(after.embeddings, codebook.embeddings, atol=1e-5)

    def test_padding_changes_nothing(self, codebook, z_e, mask):
        """[10, 11] Statistics with a mask are those of the valid vectors alone."""
        codes = quantizer.quantize(codebook, z_e).codes
        padded = jnp.where(mask[..., None], z_e, jnp.nan)
        ours = quantizer.ema_update(codebook, padded, codes, mask=mask)
        alone = quantizer.ema_update(codebook, z_e[mask], codes[mask])
        assert_codebooks_close(ours, alone, 1e-6)
        expected = oracle_ema(codebook, z_e, np.asarray(codes), 0.99, np.asarray(mask))
        assert_codebooks_close(ours, expected)

    def test_counts_follow_use_while_a_loss_moves_embeddings(self, codebook, z_e):
        codes = quantizer.quantize(codebook, z_e).codes
        ours = quantizer.count_update(codebook, codes, decay=0.9)
        counts = oracle_ema(codebook, z_e, np.asarray(codes), 0.9)[1]
        np.testing.assert_array_equal(ours.embeddings, codebook.embeddings)
        np.testing.assert_allclose(ours.counts, counts, rtol=1e-6)
        np.testing.assert_allclose(
            ours.sums, codebook.embeddings * counts[..., None], rtol=1e-5
        )


class TestKmeans:
    def test_finds_separate_clusters(self):
        rng = np.random.default_rng(0)
        centres = np.array([[0, 0], [10, 0], [0, 10], [10, 10]])
        points = centres[rng.integers(4, size=400)] + 0.1 * rng.normal(size=(400, 2))
        codebook = quantizer.init(jax.random.key(0), num_codes=8, dim=2)
        codebook = quantizer.kmeans(
            jax.random.key(1), codebook, jnp.asarray(points, "float32")
        )
        found = np.asarray(codebook.embeddings[0])
        gaps = np.linalg.norm(centres[:, None] - found, axis=-1).min(axis=1)
        assert gaps.max() < 0.2

    def test_first_update_keeps_norms(self):
        """[6] Means are stored with the sums that belong to them."""
        z_e = 4 + jax.random.normal(jax.random.key(0), (2000, 8))
        codebook = quantizer.init(jax.random.key(1), num_codes=64, dim=8)
        codebook = quantizer.kmeans(jax.random.key(2), codebook, z_e)
        codes = quantizer.quantize(codebook, z_e).codes
        after = quantizer.ema_update(codebook, z_e, codes)
        norm = np.linalg.norm(codebook.embeddings, axis=-1).mean()
        assert np.linalg.norm(after.embeddings, axis=-1).mean() == pytest.approx(
            norm, rel=0.01
        )

    def test_fewer_vectors_than_codes(self, codebook):
        z_e = jax.random.normal(jax.random.key(0), (3, G * D))
        fitted = quantizer.kmeans(jax.random.key(1), codebook, z_e)
        assert np.isfinite(fitted.embeddings).all()
        assert quantizer.quantize(fitted, z_e).commitment_loss.max() < 1e-6

    def test_padding_is_never_drawn(self, codebook, z_e, mask):
        padded = jnp.where(mask[..., None], z_e, 1e6)
        fitted = quantizer.kmeans(jax.random.key(1), codebook, padded, mask=mask)
        assert np.abs(fitted.embeddings).max() < 100


class TestRestart:
    def test_dead_codes_stay_where_they_are_put(self, codebook, z_e):
        """[5] Count and sum restart with the embedding: the next update keeps it."""
        dead = codebook._replace(counts=codebook.counts.at[:, 2].set(1e-4))
        after = quantizer.restart(jax.random.key(0), dead, z_e, min_count=0.01)
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
        updated = quantizer.ema_update(after, z_e[0, 0, :1], unused)
        np.testing.assert_allclose(
            updated.embeddings[:, 2], after.embeddings[:, 2], atol=1e-6
        )

    def test_all_padding_leaves_embeddings(self, codebook, z_e):
        dead = codebook._replace(counts=jnp.zeros((G, K)))
        nothing = jnp.zeros(SHAPE, bool)
        after = quantizer.restart(jax.random.key(0), dead, z_e, mask=nothing)
        np.testing.assert_array_equal(after.embeddings, codebook.embeddings)


class TestUsage:
    def test_counts_perplexity_and_active_codes(self, mask):
        """[12] Counts of batches add up; perplexity is taken of the sum."""
        rng = np.random.default_rng(0)
        codes = rng.integers(K, size=(*SHAPE, G))
        counts = quantizer.usage(jnp.asarray(codes), num_codes=K, mask=mask)
        valid = codes[np.asarray(mask)]
        expected = np.stack([np.bincount(valid[:, g], minlength=K) for g in range(G)])
        np.testing.assert_array_equal(counts, expected)
        p = expected / expected.sum(-1, keepdims=True)
        entropy = -np.sum(p * np.log(np.where(p > 0, p, 1)), axis=-1)
        np.testing.assert_allclose(
            quantizer.perplexity(counts), np.exp(entropy), rtol=1e-5
        )
        np.testing.assert_array_equal(
            quantizer.active_codes(counts), (expected > 0).sum(-1)
        )

    def test_perplexity_of_even_use_is_k(self):
        assert float(quantizer.perplexity(jnp.full((K,), 3.0))) == pytest.approx(K)


def twenty_steps(update, codebook, batches):
    for z_e in batches:
        codebook = update(codebook, z_e)
    return codebook


class TestDevices:
    """[7] 1 device and 8 devices keep the same codebook for 20 steps."""

    @pytest.fixture
    def batches(self):
        rng = np.random.default_rng(7)
        return [jnp.asarray(rng.normal(size=(64, G * D)), "f4") for _ in range(20)]

    @staticmethod
    def step(codebook, z_e, axis_name=None):
        codes = quantizer.quantize(codebook, z_e).codes
        codebook = quantizer.ema_update(
            codebook, z_e, codes, decay=0.9, axis_name=axis_name
        )
        return quantizer.restart(
            jax.random.key(0), codebook, z_e, min_count=1.0, axis_name=axis_name
        )

    @pytest.fixture
    def expected(self, codebook, batches):
        return twenty_steps(jax.jit(self.step), codebook, batches)

    def test_jit_with_sharding(self, codebook, batches, expected):
        mesh = Mesh(np.array(jax.devices()), ("data",))
        split = NamedSharding(mesh, PartitionSpec("data"))
        one = NamedSharding(mesh, PartitionSpec())
        step = jax.jit(self.step, out_shardings=one)
        sharded = [jax.device_put(b, split) for b in batches]
        ours = twenty_steps(step, jax.device_put(codebook, one), sharded)
        assert_codebooks_close(ours, expected)

    def test_pmap(self, codebook, batches, expected):
        step = jax.pmap(
            lambda c, z: self.step(c, z, "data"), axis_name="data", in_axes=(0, 0)
        )
        eight = jax.tree.map(lambda x: jnp.stack([x] * 8), codebook)
        split = [b.reshape(8, 8, -1) for b in batches]
        ours = twenty_steps(step, eight, split)
        assert_equal_on_all_devices(ours, expected)

    def test_shard_map(self, codebook, batches, expected):
        mesh = Mesh(np.array(jax.devices()), ("data",))
        step = jax.jit(
            jax.shard_map(
                lambda c, z: self.step(c, z, "data"),
                mesh=mesh,
                in_specs=(PartitionSpec(), PartitionSpec("data")),
                out_specs=PartitionSpec(),
                check_vma=False,
            )
        )
        assert_codebooks_close(twenty_steps(step, codebook, batches), expected)

    def test_kmeans_in_pmap_fits_one_codebook(self, codebook, batches):
        z_e = batches[0]
        alone = quantizer.kmeans(jax.random.key(3), codebook, z_e)
        fit = jax.pmap(
            lambda z: quantizer.kmeans(
                jax.random.key(3), codebook, z, axis_name="data"
            ),
            axis_name="data",
        )
        ours = fit(z_e.reshape(8, 8, -1))
        assert_equal_on_all_devices(ours, alone)


def test_works_under_vmap_scan_and_remat(codebook, z_e):
    flat = z_e.reshape(-1, G * D)
    expected = quantizer.quantize(codebook, flat)
    mapped = jax.vmap(quantizer.quantize, in_axes=(None, 0))(codebook, flat)
    _, scanned = jax.lax.scan(
        lambda c, z: (c, quantizer.quantize(c, z)), codebook, flat
    )
    for ours in (mapped, scanned):
        for a, b in zip(ours, expected, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)

    def loss(z):
        return quantizer.quantize(codebook, z).commitment_loss.sum()

    np.testing.assert_allclose(
        jax.grad(jax.checkpoint(loss))(flat), jax.grad(loss)(flat), atol=1e-6
    )


def test_importing_the_quantizer_needs_jax_alone():
    script = (
        "import sys; from vqvae_jax import quantizer; "
        "print([m for m in ('flax', 'optax', 'orbax', 'tensorflow_datasets', 'grain')"
        " if m in sys.modules])"
    )
    out = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == "[]"
