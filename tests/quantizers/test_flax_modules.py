"""The Flax modules compute what the quantizer computes."""

import dataclasses
import functools

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx
from tree_checks import assert_close, assert_equal

from vqvae_jax.quantizers import Codebook
from vqvae_jax.quantizers.linen import Quantizer as LinenQuantizer
from vqvae_jax.quantizers.nnx import Quantizer as NnxQuantizer
from vqvae_jax.quantizers.nnx import QuantizerState

KEY = jax.random.key(0)
SHAPE = (2, 5, 3)


def split(quantizer, state):
    """Return the leaves that follow the gradient, and the others, by name."""
    trainable, others = {}, {}
    leaves = jax.tree_util.tree_leaves_with_path(state)
    is_trainable = jax.tree.leaves(quantizer.trainable(state))
    for (path, leaf), moves in zip(leaves, is_trainable, strict=True):
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        (trainable if moves else others)[name] = leaf
    return trainable, others


def assert_all_leaves_differ(actual, expected):
    pairs = zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True)
    assert all((a != b).any() for a, b in pairs)


def train_with(quantizer, state, z_e, mask, keys):
    """Return the output and the next state of a step with a key for each."""
    quantize_key, update_key = keys
    out = quantizer.quantize(state, z_e, mask, quantize_key)
    return out, quantizer.update(state, z_e, out.codes, key=update_key, mask=mask)


@pytest.fixture(scope="module")
def assert_training_moves(frozen_leaves):
    """(after, before): compare all leaves, the frozen ones bit by bit."""

    def check(after, before):
        (frozen, moved), (frozen_before, others) = map(frozen_leaves, (after, before))
        assert_equal(frozen, frozen_before)
        assert_all_leaves_differ(moved, others)

    return check


@pytest.fixture(scope="module")
def z_e(quantizer):
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.normal(size=(*SHAPE, quantizer.features)), "float32")


@pytest.fixture(scope="module")
def mask():
    return jnp.asarray(np.random.default_rng(1).random(SHAPE) < 0.6)


@pytest.fixture(scope="module")
def linen_keys():
    """The keys that Flax derives from `KEY` for the first draws of a module."""

    class Keys(nn.Module):
        @nn.compact
        def __call__(self):
            return self.make_rng("rng"), self.make_rng("rng")

    return Keys().apply({}, rngs={"rng": KEY})


@pytest.fixture(scope="module")
def state(quantizer, linen_keys, z_e, mask):
    return jax.jit(quantizer.init)(linen_keys[0], z_e, mask)


@pytest.fixture(scope="module")
def variables(quantizer, z_e, mask):
    return jax.jit(LinenQuantizer(quantizer).init)(KEY, z_e, mask)


@pytest.fixture(scope="module")
def out(quantizer, state, z_e, mask):
    return jax.jit(quantizer.quantize)(state, z_e, mask)


class TestLinen:
    def test_variables_are_the_state_of_init(self, quantizer, state, variables):
        """In "params" the leaves that follow the gradient, the others apart."""
        trainable, others = split(quantizer, state)
        assert_close(variables.get("params", {}), trainable)
        assert_close(variables.get("quantizer", {}), others)

    @pytest.mark.parametrize("transform", [lambda f: f, jax.jit])
    def test_outputs(self, transform, quantizer, z_e, mask, variables, out):
        module = LinenQuantizer(quantizer)
        apply = transform(lambda v, z, m: module.apply(v, z, m))
        assert_close(apply(variables, z_e, mask), out)
        lookup = transform(lambda v, codes: module.apply(v, codes, method="lookup"))
        assert_close(lookup(variables, out.codes), out.z_q)

    def test_training_stores_the_update(
        self, quantizer, state, z_e, mask, variables, linen_keys
    ):
        module = LinenQuantizer(quantizer)

        @jax.jit
        def step(variables):
            shared = {"train": True, "mutable": ["quantizer"]}
            return module.apply(variables, z_e, mask, rngs={"quantizer": KEY}, **shared)

        found, changed = step(variables)
        expected = jax.jit(functools.partial(train_with, quantizer))
        out, updated = expected(state, z_e, mask, linen_keys)
        assert_close(found, out)
        assert changed.keys() <= {"quantizer"}
        assert_close(changed.get("quantizer", {}), split(quantizer, updated)[1])

    def test_evaluation_changes_nothing(self, quantizer, z_e, variables):
        module = LinenQuantizer(quantizer)
        _, changed = module.apply(variables, z_e, mutable=["quantizer"])
        assert_close(changed.get("quantizer", {}), variables.get("quantizer", {}))

    def test_training_needs_neither_rng_nor_mutable_variables(
        self, quantizer, z_e, mask, variables, out
    ):
        module = LinenQuantizer(quantizer)
        assert_close(module.apply(variables, z_e, mask, train=True), out)
        found, _ = module.apply(variables, z_e, mask, train=True, mutable=["quantizer"])
        assert_close(found, out)

    def test_lookup_before_init_is_rejected(self, quantizer):
        codes = jnp.zeros((2, quantizer.codes_per_vector), jnp.int32)
        with pytest.raises(ValueError, match="initialize with __call__"):
            LinenQuantizer(quantizer).init(KEY, codes, method="lookup")


class TestLinenWithVQ:
    @pytest.fixture
    def z_e(self, vq):
        rng = np.random.default_rng(0)
        return jnp.asarray(rng.normal(size=(*SHAPE, vq.features)), "float32")

    def test_variables_of_other_sizes_are_rejected(self, vq, z_e):
        variables = LinenQuantizer(vq).init(KEY, z_e)
        other = LinenQuantizer(dataclasses.replace(vq, num_codes=vq.num_codes + 1))
        with pytest.raises(flax.errors.ScopeParamShapeError):
            other.apply(variables, z_e)

    def test_missing_variables_are_rejected(self, vq, z_e):
        variables = LinenQuantizer(vq).init(KEY, z_e)
        with pytest.raises(flax.errors.ScopeCollectionNotFound, match="counts"):
            LinenQuantizer(vq).apply(
                {"params": variables["params"]}, z_e, train=True, mutable=["quantizer"]
            )

    def test_rows_in_params_restart_by_update_after_the_optimizer(self, vq, z_e):
        """As the module's documentation describes."""
        vq = dataclasses.replace(vq, dead_code_threshold=0.995)
        module = LinenQuantizer(vq)
        variables = module.init(KEY, z_e)
        state = Codebook(**variables["params"], **variables["quantizer"])
        codes = module.apply(variables, z_e).codes
        after = vq.update(state, z_e, codes, key=KEY)
        assert_all_leaves_differ(after, state)
        values = after._asdict()
        variables = {
            collection: {name: values[name] for name in leaves}
            for collection, leaves in variables.items()
        }
        assert set(variables["params"]) == {"embeddings"}
        assert_close(module.apply(variables, z_e), vq.quantize(after, z_e))


@pytest.fixture(scope="module")
def nnx_state(quantizer, z_e, mask):
    """The state of `quantizer.init` with the key that NNX derives from the seed 0."""
    return jax.jit(quantizer.init)(nnx.Rngs(0).params(), z_e, mask)


@pytest.fixture(scope="module")
def nnx_keys():
    """The keys that the module draws in training, made of the seed 0."""
    rngs = nnx.Rngs(0)
    rngs.params()
    rngs = rngs["quantizer"].fork()
    return rngs(), rngs()


@pytest.fixture(scope="module")
def nnx_module(quantizer, z_e, mask):
    make = nnx.jit(lambda z, m: NnxQuantizer(quantizer, z, m, rngs=nnx.Rngs(0)))
    return make(z_e, mask)


class TestNnx:
    @pytest.fixture
    def module(self, nnx_module):
        return nnx.clone(nnx_module)

    @staticmethod
    def values(module, kind):
        """Return the variables of a kind by name."""
        leaves = nnx.to_flat_state(nnx.state(module, kind))
        return {
            ".".join(str(key) for key in path[1:]): leaf[...] for path, leaf in leaves
        }

    def test_variables_are_the_state_of_init(self, quantizer, nnx_state, module):
        trainable, others = split(quantizer, nnx_state)
        assert_close(self.values(module, nnx.Param), trainable)
        assert_close(self.values(module, QuantizerState), others)

    @pytest.mark.parametrize("transform", [lambda f: f, nnx.jit])
    def test_outputs(self, transform, quantizer, nnx_state, z_e, mask, module):
        expected = jax.jit(quantizer.quantize)(nnx_state, z_e, mask)
        call = transform(lambda module, z_e, mask: module(z_e, mask))
        assert_close(call(module, z_e, mask), expected)
        lookup = transform(lambda module, codes: module.lookup(codes))
        assert_close(lookup(module, expected.codes), expected.z_q)
        # Evaluation changes nothing.
        self.test_variables_are_the_state_of_init(quantizer, nnx_state, module)

    def test_training_stores_the_update(
        self, quantizer, nnx_state, nnx_keys, z_e, mask, module
    ):
        step = nnx.jit(lambda module, z, m: module(z, m, train=True))
        found = step(module, z_e, mask)
        expected = jax.jit(functools.partial(train_with, quantizer))
        out, after = expected(nnx_state, z_e, mask, nnx_keys)
        assert_close(found, out)
        assert_close(self.values(module, nnx.Param), split(quantizer, nnx_state)[0])
        assert_close(self.values(module, QuantizerState), split(quantizer, after)[1])
        # One key for `quantize` and one for `update`.
        assert module.rngs.count[...] == 2


class TestTrainingStep:
    """The optimizer moves "params", and `update` moves the other leaves."""

    def test_linen(self, quantizer, z_e, assert_training_moves):
        class Autoencoder(nn.Module):
            @nn.compact
            def __call__(self, x, train=False):
                z = nn.Dense(quantizer.features)(x)
                out = LinenQuantizer(quantizer, name="vq")(z, train=train)
                return nn.Dense(x.shape[-1])(out.z_q), out

        model = Autoencoder()
        # Rows are not yet the means of the vectors to train on.
        variables = jax.jit(model.init)(KEY, 2 * z_e)
        params = variables["params"]
        state = {name: variables[name] for name in variables if name != "params"}

        @jax.jit
        def step(params, state):
            def loss(params):
                (x_hat, out), changed = model.apply(
                    {"params": params, **state},
                    z_e,
                    train=True,
                    mutable=["quantizer"],
                    rngs={"quantizer": KEY},
                )
                return jnp.square(x_hat - z_e).mean() + out.loss.mean(), changed

            (value, state), grads = jax.value_and_grad(loss, has_aux=True)(params)
            params = jax.tree.map(lambda x, dx: x - 0.1 * dx, params, grads)
            return params, state, value

        *after, first = step(params, state)
        assert_training_moves(after, [params, state])
        for _ in range(20):
            *after, value = step(*after)
        assert value < first

    def test_nnx(self, quantizer, z_e, assert_training_moves):
        class Autoencoder(nnx.Module):
            def __init__(self, rngs):
                features = quantizer.features
                self.encoder = nnx.Linear(z_e.shape[-1], features, rngs=rngs)
                self.decoder = nnx.Linear(features, z_e.shape[-1], rngs=rngs)
                # Rows are not yet the means of the vectors to train on.
                self.vq = NnxQuantizer(quantizer, self.encoder(2 * z_e), rngs=rngs)

            def __call__(self, x, train=False):
                out = self.vq(self.encoder(x), train=train)
                return self.decoder(out.z_q), out

        model = nnx.jit(lambda: Autoencoder(nnx.Rngs(0)))()
        optimizer = nnx.Optimizer(model, optax.sgd(0.1), wrt=nnx.Param)

        @nnx.jit
        def step(model, optimizer):
            def loss(model):
                x_hat, out = model(z_e, train=True)
                return jnp.square(x_hat - z_e).mean() + out.loss.mean()

            value, grads = nnx.value_and_grad(loss)(model)
            optimizer.update(model, grads)
            return value

        kinds = (nnx.Param, QuantizerState)
        before = jax.tree.map(jnp.copy, nnx.state(model, kinds))
        first = step(model, optimizer)
        assert_training_moves(nnx.state(model, kinds), before)
        for _ in range(20):
            value = step(model, optimizer)
        assert value < first
