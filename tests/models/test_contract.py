"""The contract of every registered model.

Each is the smallest of its kind, with random parameters and a batch that is partly
padding. Resuming is tested in `training/test_every_model_in_processes.py`.

Numbers in brackets are rows of the list of known defects in docs/conformance.md.
"""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import (
    NUM_CODES,
    NUM_LABELS,
    every_model,
    given_of,
    results_of,
    set_in_networks,
    slow_but,
)
from tree_checks import assert_close, assert_equal

from vqvae_jax import metrics, options, registry
from vqvae_jax.training.step import Model

KEY = jax.random.key(2)
NAMES = tuple(every_model())
# Tests that compile a second program run on the others with -m slow.
SLOW = slow_but(NAMES, "vqvae")
# For each model that encodes: what it encodes, and the latents of an example.
_CODING = {
    "vqvae": ("image", lambda model: model.grid, "int32"),
    "vae": ("image", lambda model: model.grid, "float32"),
    "vimco": ("image", lambda model: model.grid, "int32"),
    "speech": ("audio", lambda model: (4,), "int32"),
    "hierarchy": ("codes", lambda model: (model.latents,), "int32"),
    "hierarchy_vae": ("codes", lambda model: (model.z_features,), "float32"),
}
CODING = {name: _CODING[name] for name in NAMES if name in _CODING}
DECODES_AT_RANDOM = ("speech", "hierarchy", "hierarchy_vae")
# The residual output of a WaveNet's last layer, which nothing reads.
UNUSED = {
    "speech": "['stack_2']['residual']",
    "sequence_prior": "['stack_1']['residual']",
}


def is_available(row) -> bool:
    """Return whether the model of a row exists: tasks can be deleted."""
    return registry.is_available(row.model)


def shapes_of(tree):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


def everything_of(model, params, batch):
    """Return results except what `loss` hands to `update`, padding included."""
    results = results_of(model, params, KEY, batch)
    return {name: value for name, value in results.items() if name != "carry"}


@pytest.fixture(scope="module", params=NAMES)
def name(request):
    """The stage of each model in turn."""
    return request.param


@pytest.fixture(scope="module")
def case(name, tiny_model):
    """The model, its parameters and a batch whose example 2 is padding."""
    model, (params, batch) = tiny_model(name)
    batch["mask"] = batch["mask"].at[2].set(False)
    return types.SimpleNamespace(model=model, params=params, batch=batch)


@pytest.fixture(scope="module")
def compute(case):
    """(params, batch) -> `everything_of` the model, compiled once."""
    return jax.jit(lambda params, batch: everything_of(case.model, params, batch))


@pytest.fixture(scope="module")
def results(case, compute):
    return compute(case.params, case.batch)


def test_every_registered_model_is_covered():
    rows = [row for row in registry.SECOND_STAGES.values() if is_available(row)]
    kinds = [kind for kind, row in registry.MODELS.items() if is_available(row)]
    assert list(NAMES) == [*kinds, *(name for row in rows for name in row.variants)]


class TestOptions:
    def test_satisfies_the_protocol(self, case):
        assert isinstance(case.model, Model)

    def test_is_frozen_hashable_and_equal_to_its_copy(self, case):
        model = case.model
        copy = dataclasses.replace(model)
        assert copy == model
        assert hash(copy) == hash(model)
        field = dataclasses.fields(model)[0].name
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(model, field, None)

    def test_builds_from_its_config(self, case):
        model = case.model
        section = options.to_config(model)
        again = options.build(type(model), section, name="model", **given_of(model))
        assert again == model


class TestInit:
    def test_returns_float32_whatever_the_batch_size(self, case):
        init = case.model.init
        found = jax.eval_shape(init, KEY, case.batch)
        assert shapes_of(found) == shapes_of(case.params)
        assert {leaf.dtype.name for leaf in jax.tree.leaves(found)} == {"float32"}
        alone = jax.eval_shape(init, KEY, case.model.init_batch())
        assert shapes_of(alone) == shapes_of(found)

    @pytest.mark.parametrize("name", SLOW, indirect=True)
    def test_is_finite_and_decided_by_the_key(self, case):
        init = jax.jit(case.model.init)
        params, again, other = (
            jax.tree.leaves(init(jax.random.key(n), case.batch)) for n in (0, 0, 1)
        )
        assert all(np.isfinite(x).all() for x in params)
        assert_equal(params, again)
        assert any((a != b).any() for a, b in zip(params, other, strict=True))


class TestTraining:
    def test_loss_is_a_finite_scalar_and_each_metric_too(self, results):
        assert (results["loss"].shape, results["loss"].dtype) == ((), jnp.float32)
        assert np.isfinite(results["loss"])
        means = metrics.compute(results["metrics"])
        assert means
        assert np.isfinite(list(means.values())).all()

    def test_gradient_reaches_exactly_the_trainable_leaves(self, name, case, results):
        gradient = results["gradient"]
        trainable = case.model.trainable(case.params)
        assert jax.tree.structure(trainable) == jax.tree.structure(case.params)
        paths = jax.tree_util.tree_leaves_with_path(gradient)
        for (path, leaf), is_trainable in zip(
            paths, jax.tree.leaves(trainable), strict=True
        ):
            is_read = UNUSED.get(name, "nowhere") not in jax.tree_util.keystr(path)
            assert np.isfinite(leaf).all()
            assert leaf.any() == (is_trainable and is_read), jax.tree_util.keystr(path)

    def test_update_moves_exactly_the_other_leaves(self, case, results):
        updated = results["updated"]
        assert shapes_of(updated) == shapes_of(case.params)
        kept = jax.tree.map(lambda a, b: bool((a == b).all()), updated, case.params)
        assert kept == case.model.trainable(case.params)

    def test_padding_changes_nothing(self, case, compute, results):
        """[10] Not the loss, the gradient, a metric or the update."""
        mask = case.batch["mask"]

        def change(name, x):
            if name == "mask":
                return x
            categories = NUM_CODES if name == "codes" else NUM_LABELS
            highest = {"uint8": 255, "int16": -1}.get(x.dtype.name, categories - 1)
            of_x = mask if x.ndim >= mask.ndim else mask.any(axis=1)
            of_x = of_x.reshape(*of_x.shape, *(1,) * (x.ndim - of_x.ndim))
            return jnp.where(of_x, x, highest - x)

        others = {name: change(name, x) for name, x in case.batch.items()}
        assert any((others[name] != x).any() for name, x in case.batch.items())
        assert_close(compute(case.params, others), results, scaled=True)


class TestEvaluate:
    def test_is_deterministic_and_leaves_parameters_untouched(
        self, case, compute, results
    ):
        before = jax.device_get(case.params)
        again = compute(case.params, case.batch)
        assert_equal(again["evaluated"], results["evaluated"])
        assert_equal(case.params, before)

    def test_weighs_each_valid_value_once(self, case, results):
        valid = case.batch["mask"].sum()
        assert results["evaluated"]["loss"].weight == valid

    def test_adds_up_however_examples_are_batched(self, case, compute, results):
        """Random draws, if any, depend on each example alone."""
        batch = case.batch
        backwards = jax.tree.map(lambda x: x[::-1], batch)
        parts = []
        for examples, rows in ((batch, slice(0, 2)), (backwards, slice(0, 2))):
            half = jnp.zeros(len(batch["mask"]), bool).at[rows].set(True)
            half = half.reshape(-1, *(1,) * (batch["mask"].ndim - 1))
            part = examples | {"mask": examples["mask"] & half}
            parts.append(compute(case.params, part)["evaluated"])
        whole = metrics.total([results["evaluated"]])
        found = metrics.total(parts)
        assert metrics.compute(found) == pytest.approx(
            metrics.compute(whole), rel=1e-4, abs=1e-6
        )
        each, expected = metrics.each(found), metrics.each(whole)
        assert each.keys() == expected.keys()
        for name, values in each.items():
            np.testing.assert_allclose(
                np.sort(values), np.sort(expected[name]), rtol=1e-4
            )


@pytest.mark.parametrize("name", SLOW, indirect=True)
def test_eager_equals_jit(case, results):
    found = everything_of(case.model, case.params, case.batch)
    assert_close(found, results, scaled=True)


def test_bfloat16_keeps_parameters_and_gradients_float32(case):
    model, params, batch = case.model, case.params, case.batch
    coarse = set_in_networks(model, "dtype", "bfloat16")
    assert coarse != model
    assert shapes_of(jax.eval_shape(coarse.init, KEY, batch)) == shapes_of(params)
    differentiate = jax.grad(coarse.loss, has_aux=True)
    gradient, (means, _) = jax.eval_shape(differentiate, params, KEY, batch)
    assert shapes_of(gradient) == shapes_of(params)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(means)} == {"float32"}


@pytest.mark.parametrize("name", SLOW, indirect=True)
def test_bfloat16_computes_near_float32(case, results):
    coarse = set_in_networks(case.model, "dtype", "bfloat16")
    loss, _ = jax.jit(coarse.loss)(case.params, KEY, case.batch)
    assert float(loss) == pytest.approx(float(results["loss"]), rel=0.05)
    assert float(loss) != float(results["loss"])


class TestCoding:
    def test_every_model_that_encodes_is_covered(self):
        models = every_model()
        assert CODING.keys() == {n for n, m in models.items() if hasattr(m, "encode")}
        for kind in models.keys() & registry.MODELS.keys():
            assert models[kind].traits.encodes == (kind in CODING)

    @pytest.mark.parametrize("name", CODING, indirect=True)
    def test_decode_has_the_shape_of_what_encode_takes(self, name, case):
        model, params, batch = case.model, case.params, case.batch
        array, latents_of, dtype = CODING[name]
        x = batch[array]
        z = jax.eval_shape(model.encode, params, x)
        assert (z.shape, z.dtype.name) == ((len(x), *latents_of(model)), dtype)
        key = (KEY,) if name in DECODES_AT_RANDOM else ()
        speakers = {"speakers": batch["speaker"]} if "speaker" in batch else {}
        decoded = jax.eval_shape(
            lambda params, z: model.decode(params, *key, z, **speakers), params, z
        )
        assert (decoded.shape, decoded.dtype) == (x.shape, x.dtype)
