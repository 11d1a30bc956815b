"""Residual quantization against NumPy: levels, owners of gradients, dropout.

Numbers in brackets are rows of the list of known defects in docs/conformance.md.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec
from tree_checks import assert_close, assert_equal

from vqvae_jax import quantizers
from vqvae_jax.quantizers import VQ, GumbelSoftmax, Residual

KEY = jax.random.key(0)
L, G, K, D = 3, 2, 7, 4
DROPPED = -1


@pytest.fixture(scope="module")
def residual():
    """Three levels of two groups, each with a codebook of seven rows."""
    vq = VQ(num_codes=K, dim=D, codebook_init="uniform")
    return Residual(quantizer=vq, levels=L, num_groups=G, level_dropout=1.0)


@pytest.fixture(scope="module")
def state(residual):
    """Normal rows, smaller from level to level."""
    rng = np.random.default_rng(0)
    tables = [0.5 ** (i // G) * rng.normal(size=(1, K, D)) for i in range(L * G)]
    books = [quantizers.from_embeddings(jnp.asarray(t, "float32")) for t in tables]
    return residual.init(KEY)._replace(quantizers=tuple(books))


@pytest.fixture(scope="module")
def z_e():
    rng = np.random.default_rng(1)
    return jnp.asarray(rng.normal(size=(2, 5, G * D)), "float32")


@pytest.fixture(scope="module")
def quantize(residual):
    return jax.jit(residual.quantize)


@pytest.fixture(scope="module")
def key_of_levels(residual, quantize, state, z_e):
    """n -> a key with which `quantize` keeps n levels."""
    keys = {}
    for key in jax.random.split(KEY, 30):
        codes = quantize(state, z_e, key=key).codes
        keys[int((codes[0, 0, ::G] >= 0).sum())] = key
    return keys.__getitem__


@pytest.fixture(scope="module")
def oracle(state, z_e):
    """Codes `[..., L G]`; residuals, and rows, `[..., L G, D]`; in float64."""
    tables = np.asarray([np.float64(s.embeddings[0]) for s in state.quantizers])
    left = np.float64(z_e).reshape(*z_e.shape[:-1], G, D)
    codes, residuals, rows = [], [], []
    for level in range(L):
        for group in range(G):
            table = tables[level * G + group]
            residuals.append(left[..., group, :].copy())
            distances = ((residuals[-1][..., None, :] - table) ** 2).sum(-1)
            codes.append(distances.argmin(-1))
            rows.append(table[codes[-1]])
            left[..., group, :] -= rows[-1]
    return np.stack(codes, -1), np.stack(residuals, -2), np.stack(rows, -2)


@pytest.fixture(scope="module")
def data():
    """Twelve vectors, few enough for k-means to converge."""
    return jnp.asarray(np.random.default_rng(3).normal(size=(12, 2)), "float32")


@pytest.fixture(scope="module", params=quantizers.MEMBERS)
def each(request, instances):
    cls = quantizers.MEMBERS[request.param]
    inner = next(each for each in instances.values() if type(each) is cls)
    return Residual(quantizer=inner, levels=2, level_dropout=0.5)


def gradient_of(residual, state, z_e, name, index):
    """Return the gradients of one code's loss, for the state and for z_e."""

    def total(state, z_e):
        return residual.quantize(state, z_e).losses[name][..., index].sum()

    return jax.grad(total, (0, 1))(state, z_e)


class TestQuantize:
    def test_codes_vectors_and_losses_equal_numpy(self, quantize, state, z_e, oracle):
        out = quantize(state, z_e)
        codes, residuals, rows = oracle
        np.testing.assert_array_equal(out.codes, codes)
        z_q = rows.reshape(*codes.shape[:-1], L, G, D).sum(-3).reshape(z_e.shape)
        np.testing.assert_allclose(out.z_q, z_q, rtol=1e-5, atol=1e-6)
        squares = ((residuals - rows) ** 2).mean(-1)
        np.testing.assert_allclose(out.losses["codebook"], squares, rtol=1e-4)
        np.testing.assert_allclose(out.losses["commitment"], squares, rtol=1e-4)
        np.testing.assert_allclose(out.loss, 1.25 * squares.mean(-1), rtol=1e-4)

    @pytest.mark.parametrize("index", range(L * G))
    def test_each_loss_has_the_gradient_of_its_level(
        self, index, residual, state, z_e, oracle
    ):
        """[31] The codebook loss reaches its codebook, the commitment loss z_e once."""
        codes, residuals, rows = (x.reshape(10, *x.shape[2:]) for x in oracle)
        slopes = 2 * (residuals - rows)[:, index] / D
        to_rows = np.zeros((L * G, K, D))
        np.add.at(to_rows[index], codes[:, index], -slopes)
        gradient = jax.jit(gradient_of, static_argnums=(0, 3, 4))

        for_state, for_z_e = gradient(residual, state, z_e, "codebook", index)
        found = [each.embeddings[0] for each in for_state.quantizers]
        np.testing.assert_allclose(found, to_rows, rtol=1e-4, atol=1e-5)
        assert [each.any() for each in found].count(True) == 1
        assert not for_z_e.any()

        for_state, for_z_e = gradient(residual, state, z_e, "commitment", index)
        assert not any(each.embeddings.any() for each in for_state.quantizers)
        expected = np.zeros((10, G, D))
        expected[:, index % G] = slopes
        expected = expected.reshape(z_e.shape)
        np.testing.assert_allclose(for_z_e, expected, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("levels", [None, 1, 2, 3])
    def test_z_q_passes_the_gradient_of_z_e_once(
        self, levels, residual, state, z_e, key_of_levels
    ):
        """[31] Whatever the number of levels."""
        weights = jax.random.normal(KEY, z_e.shape)
        key = None if levels is None else key_of_levels(levels)

        def f(z_e, state):
            return jnp.sum(weights * residual.quantize(state, z_e, key=key).z_q)

        for_z_e, for_state = jax.jit(jax.grad(f, (0, 1)))(z_e, state)
        np.testing.assert_allclose(for_z_e, weights, rtol=1e-6)
        assert not any(each.embeddings.any() for each in for_state.quantizers)

    def test_z_e_has_the_gradient_of_the_first_estimator(self):
        """Of one that is not straight-through, whose own arrays learn in each level."""
        gumbel = GumbelSoftmax(num_codes=K, dim=D)
        residual = Residual(quantizer=gumbel, levels=2)
        state = residual.init(KEY)
        z_e, weights = jax.random.normal(KEY, (2, 6, D))

        def f(quantizer, state, z_e):
            return jnp.sum(weights * quantizer.quantize(state, z_e).z_q)

        gradient = jax.jit(jax.grad(f, (1, 2)), static_argnums=0)
        for_levels, for_z_e = gradient(residual, state, z_e)
        for_first, expected = gradient(gumbel, state.quantizers[0], z_e)
        left = z_e - gumbel.quantize(state.quantizers[0], z_e).z_q
        for_second, _ = gradient(gumbel, state.quantizers[1], left)
        assert_close(for_z_e, expected)
        assert_close(for_levels.quantizers, (for_first, for_second))


class TestGroups:
    def test_a_group_is_a_residual_quantizer_of_its_part(self, residual, state, z_e):
        out = residual.quantize(state, z_e)
        after = residual.update(state, z_e, out.codes, key=KEY)
        one = Residual(quantizer=residual.quantizer, levels=L)
        for group in range(G):
            part = z_e[..., group * D : (group + 1) * D]
            own = one.init(KEY)._replace(quantizers=state.quantizers[group::G])
            alone = one.quantize(own, part)
            assert_equal(out.z_q[..., group * D : (group + 1) * D], alone.z_q)
            assert_equal(out.codes[..., group::G], alone.codes)
            for name, loss in alone.losses.items():
                assert_close(out.losses[name][..., group::G], loss)
            updated = one.update(own, part, alone.codes, key=KEY)
            assert_close(after.quantizers[group::G], updated.quantizers)
            tables = residual.codebooks(state)[group::G]
            assert_equal(one.codebooks(own), tables)


class TestInit:
    def test_a_level_is_fitted_to_what_the_levels_before_it_left(self, data):
        """Each row is the mean of its residuals, the fixed point of Lloyd's steps."""
        residual = Residual(quantizer=VQ(num_codes=3, dim=2), levels=3)
        state = residual.init(KEY, data)
        left = np.float64(data)
        for each in state.quantizers:
            rows = np.float64(each.embeddings[0])
            codes = ((left[:, None] - rows) ** 2).sum(-1).argmin(-1)
            assert len(set(codes)) == 3
            means = [left[codes == k].mean(0) for k in range(3)]
            np.testing.assert_allclose(rows, means, atol=1e-5)
            left -= rows[codes]

    def test_a_shared_state_is_fitted_to_the_inputs_of_all_levels(self, data):
        vq = VQ(num_codes=3, dim=2)
        shared = Residual(quantizer=vq, levels=2, shared=True).init(KEY, data)
        first = Residual(quantizer=vq, levels=2).init(KEY, data).quantizers[0]
        rows = np.float64(first.embeddings[0])
        codes = ((np.float64(data)[:, None] - rows) ** 2).sum(-1).argmin(-1)
        inputs = np.concatenate([data, np.float64(data) - rows[codes]])
        (book,) = shared.quantizers
        rows = np.float64(book.embeddings[0])
        codes = ((inputs[:, None] - rows) ** 2).sum(-1).argmin(-1)
        means = [inputs[codes == k].mean(0) for k in range(3)]
        np.testing.assert_allclose(rows, means, atol=1e-5)


class TestUpdate:
    def test_a_shared_state_is_updated_once_with_all_levels(self, oracle_ema):
        vq = VQ(num_codes=K, dim=D, codebook_update="ema", codebook_init="uniform")
        residual = Residual(quantizer=vq, levels=L, shared=True)
        rows = jax.random.normal(KEY, (1, K, D))
        book = quantizers.from_embeddings(rows)
        state = residual.init(KEY)._replace(quantizers=(book,))
        z_e = jax.random.normal(jax.random.key(1), (20, D))
        codes = residual.quantize(state, z_e).codes.at[15:, 1:].set(DROPPED)
        (after,) = residual.update(state, z_e, codes, key=KEY).quantizers
        left, inputs, uses = np.float64(z_e), [], []
        for level in range(L):
            kept = np.asarray(codes[:, level]) >= 0
            inputs.append(left[kept])
            uses.append(np.asarray(codes[kept, level]))
            left = left - np.where(kept[:, None], rows[0, codes[:, level]], 0)
        inputs, uses = np.concatenate(inputs), np.concatenate(uses)[:, None]
        assert len(inputs) == 20 + 15 + 15
        expected = oracle_ema(book, inputs, uses, vq.ema_decay)
        for a, b in zip(after, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)

    def test_separate_states_have_the_statistics_of_their_residuals(
        self, state, z_e, oracle, oracle_ema
    ):
        vq = VQ(num_codes=K, dim=D, codebook_update="ema", codebook_init="uniform")
        residual = Residual(quantizer=vq, levels=L, num_groups=G)
        codes, residuals, _ = oracle
        after = residual.update(state, z_e, jnp.asarray(codes), key=KEY)
        for i, (book, found) in enumerate(
            zip(state.quantizers, after.quantizers, strict=True)
        ):
            use = residuals[..., i, :], codes[..., i : i + 1]
            for a, b in zip(found, oracle_ema(book, *use, vq.ema_decay), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


class TestLevelDropout:
    """[32] Dropped levels have the code -1, which nothing reads."""

    def test_keeps_one_number_of_levels_of_the_whole_batch(self, residual, state, z_e):
        """Uniform in 1 ... L, with the probability that was asked for."""
        half = Residual(
            quantizer=residual.quantizer, levels=L, num_groups=G, level_dropout=0.5
        )

        @jax.jit
        @functools.partial(jax.vmap, in_axes=0)
        def codes(key):
            return half.quantize(state, z_e, key=key).codes

        kept = np.asarray(codes(jax.random.split(KEY, 600))) != DROPPED
        numbers = kept.sum(-1)[:, 0, 0] // G
        expected = np.arange(L * G) < numbers[:, None] * G
        np.testing.assert_array_equal(
            kept, expected[:, None, None] & np.ones_like(kept)
        )
        frequencies = np.bincount(numbers, minlength=L + 1) / len(numbers)
        exact = [0, 1 / 6, 1 / 6, 4 / 6]
        # Four standard deviations of a frequency.
        np.testing.assert_allclose(frequencies, exact, atol=4 * 0.5 / 600**0.5)

    def test_without_dropout_or_a_key_no_level_is_dropped(self, residual, state, z_e):
        none = Residual(quantizer=residual.quantizer, levels=L, num_groups=G)
        for quantizer, key in ((none, KEY), (residual, None)):
            for seed in range(5):
                key = None if key is None else jax.random.key(seed)
                assert quantizer.quantize(state, z_e, key=key).codes.min() >= 0

    @pytest.mark.parametrize("levels", [1, 2, 3])
    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    def test_lookup_and_losses_are_those_of_the_levels_that_are_left(
        self, levels, dtype, residual, quantize, state, z_e, key_of_levels, oracle
    ):
        """[26] Equal to the last bit, in eager mode and under jit."""
        key, vectors = key_of_levels(levels), z_e.astype(dtype)
        for methods in (
            (residual.quantize, residual.lookup),
            (
                quantize,
                jax.jit(residual.lookup),
            ),
        ):
            out = methods[0](state, vectors, key=key)
            rows = methods[1](state, out.codes)
            np.testing.assert_array_equal(rows.astype(dtype), out.z_q)
        full = quantize(state, vectors)
        is_kept = np.arange(L * G) < levels * G
        np.testing.assert_array_equal(out.codes, np.where(is_kept, full.codes, DROPPED))
        for name, loss in full.losses.items():
            np.testing.assert_allclose(
                out.losses[name], np.where(is_kept, loss, 0), rtol=1e-6
            )
        kept = np.where(is_kept[:, None], oracle[2], 0).reshape(2, 5, L, G, D)
        if dtype == "float32":
            expected = kept.sum(-3).reshape(z_e.shape)
            np.testing.assert_allclose(out.z_q, expected, rtol=1e-5, atol=1e-6)

    def test_dropped_levels_have_no_gradient(self, residual, state, z_e, key_of_levels):
        def loss(state):
            return residual.quantize(state, z_e, key=key_of_levels(1)).loss.sum()

        books = jax.jit(jax.grad(loss))(state).quantizers
        moved = [bool(book.embeddings.any()) for book in books]
        assert moved == [True] * G + [False] * (L - 1) * G

    @pytest.mark.parametrize("update", ["loss", "ema"])
    def test_dropped_levels_keep_their_state(
        self, update, residual, state, z_e, quantize, key_of_levels
    ):
        """Counts that decay without data would restart codes that are in use."""
        vq = VQ(num_codes=K, dim=D, codebook_update=update, dead_code_threshold=0.9)
        training = Residual(quantizer=vq, levels=L, num_groups=G)
        codes = quantize(state, z_e, key=key_of_levels(1)).codes
        after = training.update(state, z_e, codes, key=KEY)
        assert_equal(after.quantizers[G:], state.quantizers[G:])
        full = training.update(state, z_e, quantize(state, z_e).codes, key=KEY)
        assert_equal(after.quantizers[:G], full.quantizers[:G])
        assert not np.array_equal(
            full.quantizers[-1].counts, state.quantizers[-1].counts
        )

    def test_vectors_may_have_different_numbers_of_levels(
        self, state, z_e, oracle, oracle_ema
    ):
        """As with a key for each example."""
        vq = VQ(num_codes=K, dim=D, codebook_update="ema")
        residual = Residual(quantizer=vq, levels=L, num_groups=G)
        codes, residuals, _ = oracle
        dropped = jnp.asarray(codes).at[1, :, G:].set(DROPPED)
        after = residual.update(state, z_e, dropped, key=KEY)
        for i in range(L * G):
            use = slice(None) if i < G else slice(1)
            statistics = residuals[use, :, i], codes[use, :, i : i + 1]
            expected = oracle_ema(state.quantizers[i], *statistics, vq.ema_decay)
            for a, b in zip(after.quantizers[i], expected, strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)

    def test_devices_keep_the_same_levels(self, residual, state):
        """With the same key; the statistics are those of one device."""
        z_e = jax.random.normal(KEY, (16, G * D))
        mesh = Mesh(np.array(jax.devices()), ("data",))
        one, split = PartitionSpec(), PartitionSpec("data")

        def step(state, z_e, key, axis_name=None):
            codes = residual.quantize(state, z_e, key=key).codes
            shared = {"key": key, "axis_name": axis_name}
            return codes, residual.update(state, z_e, codes, **shared)

        sharded = jax.shard_map(
            functools.partial(step, axis_name="data"),
            mesh=mesh,
            in_specs=(one, split, one),
            out_specs=(split, one),
        )
        sharded, alone = jax.jit(sharded), jax.jit(step)
        numbers = set()
        for key in jax.random.split(KEY, 5):
            found, expected = sharded(state, z_e, key), alone(state, z_e, key)
            np.testing.assert_array_equal(found[0], expected[0])
            assert_close(found[1], expected[1])
            numbers.add(int((expected[0][0] >= 0).sum()))
        assert len(numbers) > 1

    def test_a_residual_quantizer_inside_may_drop_its_own_levels(self):
        """[26] A level with some codes dropped still has a vector."""
        vq = VQ(num_codes=K, dim=D, codebook_init="uniform")
        inner = Residual(quantizer=vq, levels=2, level_dropout=1.0)
        outer = Residual(quantizer=inner, levels=2)
        state = outer.init(KEY)
        z_e = jax.random.normal(KEY, (4, D)) / K
        quantize, lookup = jax.jit(outer.quantize), jax.jit(outer.lookup)
        seen = set()
        for key in jax.random.split(KEY, 12):
            out = quantize(state, z_e, key=key)
            np.testing.assert_array_equal(lookup(state, out.codes), out.z_q)
            seen.add(tuple(np.asarray(out.codes[0]) == DROPPED))
        assert (False, True, False, False) in seen


class TestMembers:
    """Any member quantizes the levels."""

    def test_lookup_equals_z_q_to_the_last_bit(self, each):
        """[26] With and without a key."""
        rng = np.random.default_rng(0)
        z_e = jnp.asarray(rng.normal(size=(24, each.features)), "float32")
        state = jax.jit(each.init)(KEY, z_e)
        quantize, lookup = jax.jit(each.quantize), jax.jit(each.lookup)
        for key in (None, *jax.random.split(KEY, 6)):
            out = quantize(state, z_e, key=key)
            np.testing.assert_array_equal(lookup(state, out.codes), out.z_q)
            assert np.isfinite(out.z_q).all()

    def test_trainable_leaves_of_all_levels_have_a_gradient(self, each):
        """The reconstruction trains maps and rows of members without a loss of them."""
        rng = np.random.default_rng(0)
        z_e = jnp.asarray(rng.normal(size=(24, each.features)), "float32")
        state = jax.jit(each.init)(KEY, z_e)

        @jax.jit
        @jax.grad
        def gradient(state):
            out = each.quantize(state, 2 * z_e)
            return out.loss.sum() + jnp.sin(out.z_q).sum()

        is_trainable = jax.tree.leaves(each.trainable(state))
        leaves = jax.tree.leaves(gradient(state))
        moved = [bool(leaf.any()) for leaf in leaves]
        assert moved == is_trainable
