"""The contract of `quantizers.Quantizer`, for the instances of every member.

Numbers in brackets are rows of the list of known defects in docs/conformance.md.
"""

import dataclasses
import functools
import math
import re
import types

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import optax
import pytest
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from tree_checks import assert_close, assert_equal

from vqvae_jax import options, quantizers
from vqvae_jax.quantizers.primitives import vary_like

KEY = jax.random.key(0)
DTYPES = ("float32", "bfloat16", "float16")
SHAPE = (2, 5, 3)
EXTREMES = (0.0, -0.0, 1e-30, -1e-30, 1.0, -1.0, 6e4, -6e4, np.inf, -np.inf, np.nan)


def draw(quantizer, *shape, seed=0):
    """Return normal vectors of the quantizer's width."""
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.normal(size=(*shape, quantizer.features)), "float32")


def assert_finite(tree):
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))


def are_equal(a, b):
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.array_equal(x, y) for x, y in pairs)


def is_nonzero(tree):
    return any(leaf.any() for leaf in jax.tree.leaves(tree))


def all_results(quantizer, state, z_e, mask=None):
    """Return the results and gradients of all methods but `init`."""

    def objective(state, z_e):
        out = quantizer.quantize(state, z_e, mask)
        rows = quantizer.lookup(state, out.codes)
        return out.loss.sum() + jnp.sin(out.z_q).sum() + jnp.cos(rows).sum(), out

    gradients, out = jax.grad(objective, (0, 1), has_aux=True)(state, z_e)
    return {
        "out": out,
        "gradients": gradients,
        "rows": quantizer.lookup(state, out.codes),
        "state": quantizer.update(state, z_e, out.codes, key=KEY, mask=mask),
    }


def gradients_of_losses(quantizer, state, z_e, mask=None):
    """Return the gradients of each term with respect to the state and z_e."""

    def term(state, z_e, name):
        return quantizer.quantize(state, z_e, mask).losses[name].sum()

    names = jax.eval_shape(quantizer.quantize, state, z_e, mask).losses
    return {name: jax.grad(term, (0, 1))(state, z_e, name) for name in names}


def train_step(quantizer, state, z_e, mask=None, axis_name=None):
    """Take a step of SGD on the total loss, then call `update`."""

    def loss(state):
        out = quantizer.quantize(state, z_e, mask)
        return out.loss.sum(), out.codes

    # Each device computes the gradient of its own vectors, also in shard_map.
    gradient, codes = jax.grad(loss, has_aux=True)(vary_like(state, z_e))
    if axis_name is not None:
        gradient = lax.psum(gradient, axis_name)
    state = jax.tree.map(
        lambda x, dx, is_trainable: x - 0.01 * dx if is_trainable else x,
        state,
        gradient,
        quantizer.trainable(state),
    )
    shared = {"mask": mask, "axis_name": axis_name}
    return quantizer.update(state, z_e, codes, key=KEY, **shared)


@pytest.fixture(scope="module")
def jitted(quantizer):
    """The quantizer's methods under jit."""
    names = ("init", "quantize", "update", "lookup")
    methods = {name: jax.jit(getattr(quantizer, name)) for name in names}
    return types.SimpleNamespace(**methods)


@pytest.fixture(scope="module")
def state(quantizer, jitted):
    return jitted.init(KEY, draw(quantizer, *SHAPE, seed=1))


@pytest.fixture(scope="module")
def z_e(quantizer):
    """Vectors of an odd shape, `[2, 5, 3, F]`."""
    return draw(quantizer, *SHAPE)


@pytest.fixture(scope="module")
def out(jitted, state, z_e):
    return jitted.quantize(state, z_e)


@pytest.fixture(scope="module")
def mask():
    """True for about six vectors in ten."""
    return jnp.asarray(np.random.default_rng(2).random(SHAPE) < 0.6)


@pytest.fixture(scope="module")
def padded(z_e, mask):
    """The vectors, with NaN as padding."""
    return jnp.where(mask[..., None], z_e, jnp.nan)


@pytest.fixture(scope="module")
def update_draws(quantizer, jitted, state):
    """Whether `update` depends on its key: unused codes restart."""
    z_e = draw(quantizer, 6)
    codes = jnp.zeros((6, quantizer.codes_per_vector), jnp.int32)
    keys = jax.random.split(KEY)
    return not are_equal(*(jitted.update(state, z_e, codes, key=key) for key in keys))


@pytest.fixture(scope="module")
def after(jitted, state, z_e, out):
    return jitted.update(state, z_e, out.codes, key=KEY)


@pytest.fixture(scope="module")
def train(quantizer, state):
    """(step, state, shape) -> the state after 20 steps of 64 vectors."""
    batches = draw(quantizer, 20, 64, seed=7)
    masks = jnp.asarray(np.random.default_rng(8).random((20, 64)) < 0.8)

    def steps(step, state=state, shape=(64,)):
        for z_e, mask in zip(batches, masks, strict=True):
            state = step(state, z_e.reshape(*shape, -1), mask.reshape(shape))
        return state

    return steps


@pytest.fixture(scope="module")
def trained(quantizer, train):
    """The state after 20 steps on one device."""
    return train(jax.jit(functools.partial(train_step, quantizer)))


@pytest.fixture(scope="module")
def mesh():
    return Mesh(np.array(jax.devices()), ("data",))


def test_every_member_has_an_instance(instances):
    assert {type(each) for each in instances.values()} == {*quantizers.MEMBERS.values()}


class TestOptions:
    def test_satisfies_the_protocol(self, quantizer):
        assert isinstance(quantizer, quantizers.Quantizer)

    def test_is_hashable_and_frozen(self, quantizer):
        copy = dataclasses.replace(quantizer)
        assert copy == quantizer
        assert hash(copy) == hash(quantizer)
        field = dataclasses.fields(quantizer)[0].name
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(quantizer, field, None)

    def test_is_a_static_argument_of_jit(self, quantizer):
        bits = jax.jit(lambda quantizer: jnp.float32(quantizer.bits), static_argnums=0)
        assert bits(quantizer) == pytest.approx(quantizer.bits)

    def test_builds_from_its_config(self, quantizer):
        config = options.to_config(quantizer)
        built = options.build(type(quantizer), config, name="model.quantizer")
        assert built == quantizer

    def test_every_option_has_a_default(self, quantizer):
        assert isinstance(type(quantizer)(), quantizers.Quantizer)

    def test_bits_are_those_of_all_combinations(self, quantizer, has_unequal_codes):
        """Where the C codes have different numbers of values, K is the largest one."""
        all_combinations = quantizer.codes_per_vector * math.log2(quantizer.num_codes)
        if has_unequal_codes:
            combinations = math.prod(quantizer.levels)
            assert quantizer.bits == pytest.approx(math.log2(combinations))
            assert quantizer.bits < all_combinations
        else:
            assert quantizer.bits == pytest.approx(all_combinations)


class TestInit:
    def test_returns_finite_float32(self, state):
        assert {leaf.dtype for leaf in jax.tree.leaves(state)} <= {jnp.dtype("float32")}
        assert_finite(state)

    def test_is_deterministic(self, quantizer, jitted, state):
        assert_equal(jitted.init(KEY, draw(quantizer, *SHAPE, seed=1)), state)

    def test_depends_on_data_only_where_it_reads_data(self, quantizer, jitted, state):
        other = jitted.init(KEY, draw(quantizer, *SHAPE, seed=2))
        assert are_equal(other, state) != quantizer.init_reads_data

    def test_requires_z_e_only_where_it_reads_data(self, quantizer, jitted, state):
        if quantizer.init_reads_data:
            with pytest.raises(ValueError, match="z_e"):
                quantizer.init(KEY)
        else:
            assert_equal(jitted.init(KEY), state)

    def test_accepts_fewer_vectors_than_codes(self, quantizer, jitted):
        assert_finite(jitted.init(KEY, draw(quantizer, 1)))

    def test_eager_equals_jit(self, quantizer, state):
        """No array occurs twice, so that a fresh state can be donated."""
        fresh = quantizer.init(KEY, draw(quantizer, *SHAPE, seed=1))
        assert_close(fresh, state)
        leaves = jax.tree.leaves(fresh)
        assert len({leaf.unsafe_buffer_pointer() for leaf in leaves}) == len(leaves)

    def test_structure_depends_on_options_alone(self, quantizer, state):
        z_e = jax.ShapeDtypeStruct((1, quantizer.features), "float32")
        abstract = jax.eval_shape(quantizer.init, KEY, z_e)
        assert jax.tree.structure(abstract) == jax.tree.structure(state)
        assert jax.tree.map(jnp.shape, abstract) == jax.tree.map(jnp.shape, state)

    def test_trainable_has_the_structure_of_the_state(self, quantizer, state):
        trainable = quantizer.trainable(state)
        assert jax.tree.structure(trainable) == jax.tree.structure(state)
        assert all(type(leaf) is bool for leaf in jax.tree.leaves(trainable))
        assert quantizer.trainable(jax.eval_shape(lambda: state)) == trainable

    def test_codebooks_hold_a_row_for_each_code(self, quantizer, state):
        codebooks = quantizer.codebooks(state)
        if codebooks is not None:
            sizes = quantizer.codes_per_vector, quantizer.num_codes
            assert codebooks.shape[:2] == sizes
            if quantizer.codes_per_vector == 1:
                codes = jnp.arange(quantizer.num_codes)[:, None]
                assert_close(codebooks[0], quantizer.lookup(state, codes))


class TestQuantize:
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("shape", [(), (6,), SHAPE, (0,)], ids=str)
    def test_shapes_and_dtypes(self, shape, dtype, quantizer, state):
        z_e = jax.ShapeDtypeStruct((*shape, quantizer.features), dtype)
        out = jax.eval_shape(quantizer.quantize, state, z_e)
        shape_of_codes = (*shape, quantizer.codes_per_vector)
        assert out.z_q.shape == z_e.shape
        assert out.z_q.dtype == dtype
        assert out.codes.shape == shape_of_codes
        assert out.codes.dtype == jnp.int32
        for loss in out.losses.values():
            assert loss.shape == shape_of_codes
            assert loss.dtype == jnp.float32
        assert out.loss.shape == shape
        assert out.loss.dtype == jnp.float32
        rows = jax.eval_shape(quantizer.lookup, state, out.codes)
        assert rows.shape == z_e.shape
        assert rows.dtype == jnp.float32

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_lookup_equals_z_q_to_the_last_bit(
        self, dtype, quantizer, jitted, state, z_e
    ):
        """[26] In eager mode and under jit, in every dtype."""
        z_e = z_e.astype(dtype)
        for methods in (quantizer, jitted):
            out = methods.quantize(state, z_e)
            rows = methods.lookup(state, out.codes)
            np.testing.assert_array_equal(rows.astype(dtype), out.z_q)

    def test_lookup_equals_z_q_with_all_optimizations(self, quantizer, state):
        """[26] Where XLA merges operations, which rounds once instead of twice."""
        # Biases start at 0, which would hide it.
        state = jax.tree.map(lambda x: x + 0.1 * jax.random.normal(KEY, x.shape), state)
        compile = functools.partial(
            jax.jit, compiler_options={"xla_backend_optimization_level": 3}
        )
        out = compile(quantizer.quantize)(state, draw(quantizer, 1000))
        rows = compile(quantizer.lookup)(state, out.codes)
        np.testing.assert_array_equal(rows, out.z_q)

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_codes_are_in_range_for_extreme_inputs(
        self, dtype, quantizer, jitted, state
    ):
        """[27] Zeros of both signs, infinities, NaN, and mixtures of them."""
        same = np.repeat(np.array(EXTREMES)[:, None], quantizer.features, axis=1)
        shape = (64, quantizer.features)
        mixed = np.random.default_rng(0).choice(EXTREMES, size=shape)
        z_e = jnp.asarray(np.concatenate([same, mixed])).astype(dtype)
        codes = jitted.quantize(state, z_e).codes
        assert codes.min() >= 0
        assert codes.max() < quantizer.num_codes
        assert_finite(jitted.lookup(state, codes))

    def test_bfloat16_inputs_get_the_codes_of_float32(self, jitted, state, z_e):
        """[8] Distances are float32 whatever the dtype of the input."""
        low = z_e.astype(jnp.bfloat16)
        out = jitted.quantize(state, low)
        expected = jitted.quantize(state, low.astype(jnp.float32))
        np.testing.assert_array_equal(out.codes, expected.codes)
        assert_equal(out.losses, expected.losses)

    def test_products_request_the_highest_precision(self, quantizer, state, z_e):
        """[8] TPUs multiply float32 in fewer bits otherwise."""
        jaxpr = str(jax.make_jaxpr(quantizer.quantize)(state, z_e))
        products = re.findall(r"dot_general\[(.*?)\n\s*\]", jaxpr, re.DOTALL)
        assert len(products) == jaxpr.count("dot_general[")
        assert all("HIGHEST" in product for product in products)

    def test_is_deterministic_without_a_key(self, jitted, state, z_e, out):
        """[34] Evaluation draws nothing."""
        assert_equal(jitted.quantize(state, z_e), out)

    def test_a_key_changes_no_shape(self, quantizer, state, z_e, out):
        with_key = jax.eval_shape(quantizer.quantize, state, z_e, key=KEY)
        assert jax.tree.map(jnp.shape, with_key) == jax.tree.map(jnp.shape, out)

    def test_a_vector_is_independent_of_the_others(
        self, jitted, state, z_e, out, of_each_vector
    ):
        alone = jitted.quantize(state, z_e[1, 2, 0])
        expected = jax.tree.map(lambda x: x[1, 2, 0], out)
        np.testing.assert_array_equal(alone.codes, expected.codes)
        assert_close(of_each_vector(alone), of_each_vector(expected))

    def test_total_loss_is_linear_in_the_terms(self, quantizer, out):
        # Of no terms the total is the number 0.
        total = np.broadcast_to(quantizer.total_loss(out.losses), out.codes.shape)
        assert_close(out.loss, total.mean(axis=-1))
        doubled = {name: 2 * value for name, value in out.losses.items()}
        assert_close(quantizer.total_loss(doubled) + 0 * total, 2 * total)
        scalars = {name: float(value.mean()) for name, value in out.losses.items()}
        expected = float(total.mean())
        assert quantizer.total_loss(scalars) == pytest.approx(expected, rel=1e-4)

    def test_reads_the_inference_state_alone(self, quantizer, jitted, state, z_e, out):
        read = {id(x) for x in jax.tree.leaves(quantizer.inference_state(state))}
        spoilt = jax.tree.map(
            lambda x: x if id(x) in read else jnp.full_like(x, jnp.nan), state
        )
        assert_equal(jitted.quantize(spoilt, z_e), out)
        assert_equal(jitted.lookup(spoilt, out.codes), out.z_q)

    def test_rejects_wrong_last_axes(self, quantizer, state, z_e, monkeypatch):
        monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
        with pytest.raises(ValueError, match="last axis"):
            quantizer.quantize(state, z_e[..., 1:])
        codes = jnp.zeros((2, quantizer.codes_per_vector + 1), jnp.int32)
        with pytest.raises(ValueError, match="last axis"):
            quantizer.lookup(state, codes)


class TestGradients:
    def test_each_loss_has_one_owner(self, quantizer, encoder_leaves, after, z_e):
        """[1, 2, 31] The gradient of a term reaches the codebooks or z_e, never both.

        A map from z_e to the space of the codes belongs to the encoder. After an
        update: a term may read statistics that are neutral at first.
        """
        gradients = jax.jit(functools.partial(gradients_of_losses, quantizer))
        for name, (for_state, for_z_e) in gradients(after, z_e).items():
            assert_finite((for_state, for_z_e))
            for_maps, for_rows = encoder_leaves(for_state)
            owners = for_rows, (for_maps, for_z_e)
            assert [is_nonzero(each) for each in owners].count(True) == 1, name
            assert is_nonzero(for_z_e) or not is_nonzero(for_maps), name

    def test_every_trainable_leaf_has_a_gradient(self, quantizer, state, z_e):
        @jax.jit
        @jax.grad
        def gradient(state):
            out = quantizer.quantize(state, z_e)
            return out.loss.sum() + jnp.sin(out.z_q).sum()

        pairs = zip(
            jax.tree.leaves(gradient(state)),
            jax.tree.leaves(quantizer.trainable(state)),
            strict=True,
        )
        assert all(leaf.any() for leaf, is_trainable in pairs if is_trainable)

    def test_reconstruction_gradient_reaches_z_e(
        self, quantizer, quantizer_name, is_straight_through, state, z_e, out
    ):
        """[2] A straight-through estimator passes it unchanged, and to z_e only."""
        weights = draw(quantizer, *SHAPE, seed=3)

        def f(state, z_e):
            return jnp.sum(weights * quantizer.quantize(state, z_e).z_q ** 2)

        for_state, for_z_e = jax.jit(jax.grad(f, (0, 1)))(state, z_e)
        assert_finite((for_state, for_z_e))
        assert for_z_e.any()
        if is_straight_through(quantizer_name):
            assert_close(for_z_e, 2 * weights * out.z_q)
            assert not is_nonzero(for_state)

    def test_lookup_passes_gradients_to_the_codebooks(
        self, quantizer, frozen_leaves, state, out
    ):
        def f(state):
            return jnp.sum(jnp.sin(quantizer.lookup(state, out.codes)))

        gradient = jax.jit(jax.grad(f))(state)
        assert_finite(gradient)
        others = frozen_leaves(gradient)[1]
        has_tables = quantizer.codebooks(state) is not None
        assert is_nonzero(others) or not (others and has_tables)

    def test_gradients_are_finite_at_zero_and_at_a_row(
        self, quantizer, jitted, state, z_e
    ):
        """[30] An estimator may divide by |z_e| or by |z_e - z_q|."""
        vectors = z_e.at[0].set(0.0).at[1].set(jitted.quantize(state, z_e).z_q[1])
        assert_finite(
            jax.jit(functools.partial(all_results, quantizer))(state, vectors)
        )

    def test_frozen_leaves_do_not_move(self, quantizer, frozen_leaves, state, z_e):
        """[33] Neither by a gradient nor by the decay of weights."""
        if not frozen_leaves(state)[0]:
            return
        optimizer = optax.adamw(0.1, weight_decay=0.1, mask=quantizer.trainable)

        @jax.jit
        def step(state, opt_state):
            @jax.grad
            def gradient(state):
                out = quantizer.quantize(state, z_e)
                rows = quantizer.lookup(state, out.codes)
                return out.loss.sum() + jnp.sin(out.z_q + rows).sum()

            updates, opt_state = optimizer.update(gradient(state), opt_state, state)
            state = optax.apply_updates(state, updates)
            codes = quantizer.quantize(state, z_e).codes
            return quantizer.update(state, z_e, codes, key=KEY), opt_state

        after, opt_state = state, optimizer.init(state)
        for _ in range(20):
            after, opt_state = step(after, opt_state)
        assert_equal(frozen_leaves(after)[0], frozen_leaves(state)[0])
        pairs = zip(frozen_leaves(after)[1], frozen_leaves(state)[1], strict=True)
        assert all((a != b).any() for a, b in pairs)


class TestMask:
    """[10, 11] Padding changes nothing, whatever its values."""

    def test_a_mask_of_all_vectors_changes_nothing(
        self, quantizer, jitted, state, z_e, out, after
    ):
        ones = jnp.ones(SHAPE, bool)
        masked = jitted.quantize(state, z_e, ones)
        np.testing.assert_array_equal(masked.codes, out.codes)
        assert_close(masked, out)
        assert_close(jitted.update(state, z_e, out.codes, key=KEY, mask=ones), after)
        assert_close(jitted.init(KEY, draw(quantizer, *SHAPE, seed=1), ones), state)

    def test_losses_are_zero_at_padding(self, quantizer, state, z_e, mask, padded):
        out = quantizer.quantize(state, z_e)
        masked = quantizer.quantize(state, padded, mask)
        np.testing.assert_array_equal(masked.codes[mask], out.codes[mask])
        np.testing.assert_array_equal(masked.z_q[mask], out.z_q[mask])
        assert not is_nonzero(jax.tree.map(lambda x: x[~mask], masked.losses))
        assert not masked.loss[~mask].any()
        alone = quantizer.quantize(state, z_e[mask])
        assert_close(jax.tree.map(lambda x: x[mask], masked.losses), alone.losses)
        assert_close(masked.loss[mask], alone.loss)

    def test_gradients_are_those_of_the_valid_vectors(
        self, quantizer, state, z_e, mask, padded
    ):
        gradients = jax.jit(functools.partial(gradients_of_losses, quantizer))
        masked = gradients(state, padded, mask)
        alone = gradients(state, z_e[mask])
        for name, (for_state, for_z_e) in masked.items():
            valid_state, valid_z_e = alone[name]
            assert_close(for_state, valid_state)
            assert_close(for_z_e[mask], valid_z_e)
            assert not for_z_e[~mask].any()

    def test_update_ignores_padding(
        self, jitted, state, z_e, mask, padded, out, update_draws
    ):
        update = functools.partial(jitted.update, state, key=KEY)
        masked = update(padded, out.codes, mask=mask)
        assert_finite(masked)
        far = jnp.where(mask[..., None], z_e, 1e6)
        codes = jnp.where(mask[..., None], out.codes, 0)
        assert_equal(update(far, codes, mask=mask), masked)
        # A draw depends on the number of vectors, padding included.
        if not update_draws:
            assert_close(masked, update(z_e[mask], codes[mask]))

    def test_init_ignores_padding(self, jitted, z_e, mask, padded):
        state = jitted.init(KEY, padded, mask)
        assert_finite(state)
        far = jnp.where(mask[..., None], z_e, 1e6)
        assert_equal(jitted.init(KEY, far, mask), state)

    def test_all_vectors_may_be_padding(self, jitted, state, padded, out):
        nothing = jnp.zeros(SHAPE, bool)
        masked = jitted.quantize(state, padded, nothing)
        assert not is_nonzero((masked.losses, masked.loss))
        assert_finite(jitted.init(KEY, padded, nothing))
        update = functools.partial(jitted.update, state, padded, out.codes)
        assert_finite(update(key=KEY, mask=nothing))

    def test_rejects_a_mask_of_the_batch_axis(
        self, quantizer, state, after, monkeypatch
    ):
        """It would broadcast against the last axis of a square grid."""
        monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
        z_e, mask = draw(quantizer, 3, 3, 3), jnp.ones(3, bool)
        codes = jnp.zeros((3, 3, 3, quantizer.codes_per_vector), jnp.int32)
        match = r"mask must .* \(3, 3, 3\).*got \(3,\)"
        with pytest.raises(ValueError, match=match):
            quantizer.quantize(state, z_e, mask)
        if not are_equal(after, state):
            with pytest.raises(ValueError, match=match):
                quantizer.update(state, z_e, codes, key=KEY, mask=mask)
        if quantizer.init_reads_data:
            with pytest.raises(ValueError, match=match):
                quantizer.init(KEY, z_e, mask)


class TestUpdate:
    def test_keeps_the_structure(self, state, after):
        assert jax.tree.structure(after) == jax.tree.structure(state)
        for name in ("shape", "dtype", "weak_type"):
            kept = [getattr(leaf, name) for leaf in jax.tree.leaves(state)]
            assert [getattr(leaf, name) for leaf in jax.tree.leaves(after)] == kept

    def test_is_deterministic(self, jitted, state, z_e, out, after):
        assert_equal(jitted.update(state, z_e, out.codes, key=KEY), after)

    def test_unused_codes_do_not_move(
        self, quantizer, jitted, state, z_e, out, update_draws
    ):
        """[3] One step from a fresh state, in which no count is zero."""
        tables = quantizer.codebooks(state)
        if tables is None or update_draws:
            return
        codes = out.codes[:1, 0, 0]
        after = jitted.update(state, z_e[:1, 0, 0], codes, key=KEY)
        unused = np.ones(tables.shape[:2], bool)
        unused[np.arange(len(tables)), np.asarray(codes)[0]] = False
        moved = np.abs(quantizer.codebooks(after) - tables)[unused]
        assert moved.max() < 1e-6

    def test_passes_no_gradient_to_z_e(self, quantizer, state, z_e, out):
        @jax.jit
        @jax.grad
        def gradient(z_e):
            after = quantizer.update(state, z_e, out.codes, key=KEY)
            return sum(leaf.sum() for leaf in jax.tree.leaves(after))

        assert not gradient(z_e).any()


class TestTransformations:
    def test_stays_in_32_bits_with_x64_enabled(self, quantizer, state, z_e, mask):
        """Programs that use the library may enable x64."""
        with jax.enable_x64(True):
            results = functools.partial(all_results, quantizer)
            found = jax.eval_shape(results, state, z_e, mask)
            fresh = jax.eval_shape(quantizer.init, KEY, z_e, mask)
        dtypes = {leaf.dtype.name for leaf in jax.tree.leaves((found, fresh))}
        assert dtypes <= {"float32", "int32"}

    def test_eager_equals_jit(self, quantizer, state, z_e, out, after):
        eager = quantizer.quantize(state, z_e)
        np.testing.assert_array_equal(eager.codes, out.codes)
        assert_close(eager, out)
        assert_close(quantizer.update(state, z_e, out.codes, key=KEY), after)

    def test_vmap_over_states(self, quantizer, state, z_e, mask):
        results = functools.partial(all_results, quantizer)
        expected = jax.jit(results)(state, z_e, mask)
        states = jax.tree.map(lambda x: jnp.stack([2 * x, x]), state)
        found = jax.jit(jax.vmap(results, (0, None, None)))(states, z_e, mask)
        assert_close(jax.tree.map(lambda x: x[1], found), expected)

    def test_vmap_over_vectors(self, quantizer, state, z_e, mask, out, of_each_vector):
        shared = {"key": KEY, "axis_name": "batch"}

        @jax.jit
        @functools.partial(jax.vmap, axis_name="batch")
        def mapped(z_e, mask):
            out = quantizer.quantize(state, z_e)
            return out, quantizer.update(state, z_e, out.codes, mask=mask, **shared)

        found, states = mapped(z_e, mask)
        assert_close(of_each_vector(found), of_each_vector(out))
        after = quantizer.update(state, z_e, out.codes, key=KEY, mask=mask)
        for i in range(len(z_e)):
            assert_close(jax.tree.map(lambda x, i=i: x[i], states), after)

    def test_scan_equals_a_loop(self, quantizer, state):
        batches = draw(quantizer, 5, 16)
        step = jax.jit(functools.partial(train_step, quantizer))
        scanned, _ = lax.scan(lambda c, z: (step(c, z), None), state, batches)
        for z_e in batches:
            state = step(state, z_e)
        assert_close(scanned, state)


class TestDevices:
    """[7] 1 device and 8 devices hold the same state after 20 steps."""

    def test_jit_with_sharding(self, quantizer, train, mesh, trained):
        split = NamedSharding(mesh, PartitionSpec("data"))
        one = NamedSharding(mesh, PartitionSpec())
        step = jax.jit(
            functools.partial(train_step, quantizer),
            in_shardings=(one, split, split),
            out_shardings=one,
        )
        assert_close(train(step), trained)

    def test_pmap(self, quantizer, state, train, trained):
        step = functools.partial(train_step, quantizer, axis_name="data")
        eight = jax.tree.map(lambda x: jnp.stack([x] * 8), state)
        found = train(jax.pmap(step, axis_name="data"), eight, shape=(8, 8))
        for device in range(8):
            assert_close(jax.tree.map(lambda x, i=device: x[i], found), trained)

    @pytest.mark.parametrize("check_vma", [True, False])
    def test_shard_map(self, check_vma, quantizer, train, mesh, trained):
        one, split = PartitionSpec(), PartitionSpec("data")
        step = jax.shard_map(
            functools.partial(train_step, quantizer, axis_name="data"),
            mesh=mesh,
            in_specs=(one, split, split),
            out_specs=one,
            check_vma=check_vma,
        )
        assert_close(train(jax.jit(step)), trained)
