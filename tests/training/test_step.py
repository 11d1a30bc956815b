"""The training step and its gradient, against NumPy, on devices and in parts."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec
from line_runs import Line, Points
from tiny_models import set_in_networks, slow_but
from tree_checks import assert_close

from vqvae_jax import metrics
from vqvae_jax.models.vqvae import VQVAE
from vqvae_jax.networks.autoencoder import Decoder, Encoder
from vqvae_jax.quantizers import VQ
from vqvae_jax.training import sharding
from vqvae_jax.training.step import (
    Model,
    TrainState,
    average_params,
    init_state,
    loss_and_gradient,
    make_train_step,
)

RATE, STEPS, DECAY = 0.1, 20, 0.6
KEY = jax.random.key(1)


def start():
    params = {"w": np.array([0.3, 0.7], "f4"), "seen": np.zeros((), "f4")}
    opt_state = optimizer().init(params)
    average = jax.tree.map(np.copy, params)
    return TrainState(np.zeros((), "i4"), params, opt_state, KEY, average)


def make_step(model, **options):
    return make_train_step(model, optimizer(), params_ema_decay=DECAY, **options)


def optimizer():
    """Plain gradient descent on "w", which the NumPy oracle computes too."""
    labels = {"w": "move", "seen": "stay"}
    transforms = {"move": optax.sgd(RATE), "stay": optax.set_to_zero()}
    return optax.partition(transforms, labels)


@pytest.fixture(scope="module")
def batches():
    """20 batches of 16, every second example masked: one example per device."""
    source = Points(16 * STEPS)
    mask = np.arange(16) % 2 > 0
    return [
        {"x": x, "y": y, "mask": mask}
        for x, y in zip(
            source.x.reshape(STEPS, 16, 2), source.y.reshape(STEPS, 16), strict=True
        )
    ]


@pytest.fixture(scope="module")
def oracle(batches):
    """Gradient descent in float64: w, average of [w, seen], last loss, last norm."""
    w = np.array([0.3, 0.7])
    average = np.array([0.3, 0.7, 0.0])
    for t, batch in enumerate(batches):
        x, y = batch["x"][batch["mask"]], batch["y"][batch["mask"]]
        error = x @ w - y
        gradient = 2 * error @ x / len(x)
        w = w - RATE * gradient
        # 0.1, 2/11, 3/12, ..., and DECAY from the 14th step on.
        decay = min(DECAY, (1 + t) / (10 + t))
        average = decay * average + (1 - decay) * np.append(w, t + 1)
    return w, average, np.mean(error**2), np.linalg.norm(gradient)


def run(step, state, batches):
    for batch in batches:
        state, values = step(state, batch)
    return state, values


def check(state, values, oracle):
    w, average, loss, norm = oracle
    np.testing.assert_allclose(state.params["w"], w, atol=1e-5)
    assert (int(state.step), float(state.params["seen"])) == (STEPS, STEPS)
    found = np.append(state.average["w"], state.average["seen"])
    np.testing.assert_allclose(found, average, rtol=1e-5, atol=1e-5)
    assert state.result is state.average
    expected = {"loss": loss, "error": loss, "gradient_norm": norm}
    assert metrics.compute(values) == pytest.approx(expected, rel=1e-3, abs=1e-6)


class TestDevices:
    """[7] After 20 steps, parameters equal those of NumPy."""

    def test_one_device(self, batches, oracle):
        step = jax.jit(make_step(Line(noise=0.0)))
        check(*run(step, start(), batches), oracle)

    def test_eight_devices_under_jit(self, batches, oracle, mesh):
        replicated = sharding.replicated(mesh)
        step = jax.jit(make_step(Line(noise=0.0)), out_shardings=replicated)
        split = [sharding.put_batch(batch, mesh) for batch in batches]
        check(*run(step, jax.device_put(start(), replicated), split), oracle)

    @pytest.mark.parametrize("check_vma", [True, False])
    def test_eight_devices_under_shard_map(self, batches, oracle, mesh, check_vma):
        inner = make_step(Line(noise=0.0), axis_name="data")
        step = jax.shard_map(
            inner,
            mesh=mesh,
            in_specs=(PartitionSpec(), PartitionSpec("data")),
            out_specs=PartitionSpec(),
            check_vma=check_vma,
        )
        check(*run(jax.jit(step), start(), batches), oracle)

    def test_eight_devices_under_pmap(self, batches, oracle):
        inner = make_step(Line(noise=0.0), axis_name="data")
        state, values = run(
            jax.pmap(inner, axis_name="data"),
            jax.tree.map(lambda x: jnp.stack([x] * 8), start()),
            [{k: v.reshape(8, 2, *v.shape[1:]) for k, v in b.items()} for b in batches],
        )
        for device in range(8):
            check(*jax.tree.map(lambda x, i=device: x[i], (state, values)), oracle)


class Draws:
    """Stores the random numbers drawn by its loss and its update."""

    def init(self, key, batch):
        return {"w": jnp.ones(()), "loss": jnp.zeros(()), "update": jnp.zeros(())}

    def trainable(self, params):
        return {"w": True, "loss": False, "update": False}

    def loss(self, params, key, batch):
        return params["w"] * batch["x"].mean(), ({}, jax.random.uniform(key))

    def update(self, params, key, carry, *, axis_name=None):
        return params | {"loss": carry, "update": jax.random.uniform(key)}

    def evaluate(self, params, batch):
        return {}


def test_loss_keys_differ_by_device_and_step_and_update_keys_by_step():
    """Noise differs between devices; updates of replicated parameters do not."""
    step = make_train_step(Draws(), optax.set_to_zero(), axis_name="data")
    state = TrainState(
        jnp.zeros((), "i4"), Draws().init(None, None), optax.EmptyState(), KEY
    )

    def two_steps(batch):
        first, _ = step(state, batch)
        second, _ = step(first, batch)
        return jax.tree.map(lambda *x: jnp.stack(x), first.params, second.params)

    mapped = jax.jit(jax.vmap(two_steps, axis_name="data"))
    batch = {"x": np.ones((4, 2), "f4"), "mask": np.ones((4, 2), bool)}
    draws = mapped(batch)  # each [device, step]
    assert len(np.unique(draws["loss"])) == 8
    np.testing.assert_array_equal(draws["update"][1:], draws["update"][:-1])
    assert len(np.unique(draws["update"])) == 2
    assert not np.intersect1d(draws["loss"], draws["update"]).size


def test_init_and_run_keys_are_independent():
    assert isinstance(Line(), Model)
    init = jax.jit(lambda key, batch: init_state(Line(), optimizer(), key, batch))
    state = init(KEY, {"x": np.zeros((2, 2), "f4")})
    params_key, run_key = jax.random.split(KEY)
    np.testing.assert_array_equal(
        state.params["w"], jax.random.normal(params_key, (2,))
    )
    assert state.key == run_key
    assert jax.dtypes.issubdtype(state.key.dtype, jax.dtypes.prng_key)
    assert state.step == 0
    assert state.average is None
    assert state.result is state.params


def test_the_average_starts_as_a_copy_of_the_parameters(batches):
    """A copy, because a step with donated arguments overwrites its input state."""
    for transform in (lambda f: f, jax.jit):
        init = transform(
            lambda: init_state(
                Line(), optimizer(), KEY, {"x": jnp.zeros((2, 2))}, params_ema_decay=0.9
            )
        )
        # NumPy views prevent donation, so compare values of another state.
        state, before = init(), jax.device_get(init())
        jax.tree.map(np.testing.assert_array_equal, before.average, before.params)
        old = state.average["w"]
        step = jax.jit(make_step(Line(noise=0.0)), donate_argnums=0)
        state, _ = step(state, batches[0])
        assert old.is_deleted()
        w, new = before.params["w"], state.params["w"]
        np.testing.assert_allclose(state.average["w"], 0.1 * w + 0.9 * new, rtol=1e-6)


def test_only_floats_are_averaged():
    old = {"n": np.int32(5), "flag": np.bool_(False), "half": np.float16(2)}
    new = {"n": np.int32(8), "flag": np.bool_(True), "half": np.float16(4)}
    found = jax.jit(lambda: average_params(old, new, jnp.int32(90), decay=0.5))()
    assert (found["n"], found["flag"], found["half"]) == (8, True, 3)
    assert (found["n"].dtype, found["flag"].dtype) == ("int32", "bool")


def one_step(model, params, batch, **options):
    """Return parameters and metrics after one step of gradient descent."""
    transforms = {True: optax.sgd(0.1), False: optax.set_to_zero()}
    optimizer = optax.partition(transforms, model.trainable(params))

    def step(params, batch):
        state = TrainState(jnp.zeros((), "i4"), params, optimizer.init(params), KEY)
        state, metrics = make_train_step(model, optimizer, **options)(state, batch)
        return state.params, metrics

    return jax.jit(step)(params, batch)


# Options without random draws, which differ between a part and the whole batch.
WITHOUT_DRAWS = {
    "vqvae": {},
    "speech": {"jitter": 0.0},
    "hierarchy": {},
    "pixelcnn": {"network.dropout": 0.0},
    "prior": {"network.dropout": 0.0, "label_dropout": 0.0},
    "sequence_prior": {"network.dropout": 0.0},
    "video": {"context.dropout": 0.0, "pixelcnn.dropout": 0.0},
}


@pytest.mark.parametrize("name", slow_but(WITHOUT_DRAWS, "vqvae"))
def test_an_accumulated_step_equals_a_whole_step(name, tiny_model):
    """Compare parameters, EMA and restarts of the codebook, and every metric.

    Parts differ in padding, and speech has means over samples and over codes.
    """
    model, (params, batch) = tiny_model(name, 12, WITHOUT_DRAWS[name])
    expected = one_step(model, params, batch)
    moved = jax.tree.map(lambda a, b: abs(a - b).max(), expected[0], params)
    assert np.mean(np.array(jax.tree.leaves(moved)) > 1e-4) > 0.8
    assert_close(one_step(model, params, batch, accumulate=3), expected)


def test_shares_of_parts_sum_to_the_masked_mean():
    """Compare with NumPy; one part consists of padding only."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(12, 2)), rng.normal(size=12)
    # Part j of three takes rows j, j + 3, ...
    mask = np.arange(12) % 3 > 0
    mask[4] = False
    batch = {"x": x.astype("f4"), "y": y.astype("f4"), "mask": mask}
    params = {"w": np.array([0.3, 0.7], "f4"), "seen": np.zeros((), "f4")}
    model = Line(noise=0.0)
    found = jax.jit(
        lambda params, batch: loss_and_gradient(
            model.loss, params, KEY, batch, accumulate=3
        )
    )(params, batch)
    error = (x @ params["w"] - y)[mask]
    gradient = 2 * error @ x[mask] / mask.sum()
    np.testing.assert_allclose(found.gradient["w"], gradient, rtol=1e-5)
    total, weight = found.metrics["error"]
    np.testing.assert_allclose((total, weight), ((error**2).sum(), mask.sum()), 1e-5)
    np.testing.assert_allclose(found.metrics["loss"], (np.mean(error**2), 1), 1e-5)


def test_parts_have_different_keys_and_the_carry_keeps_its_order():
    def loss(params, key, batch):
        return params * batch["x"].sum(), ({}, (batch["x"], jax.random.normal(key, 2)))

    x = np.arange(6.0, dtype="f4")
    found = loss_and_gradient(
        loss, 1.0, KEY, {"x": x, "mask": np.ones(6, bool)}, accumulate=3
    )
    carried, draws = found.carry
    np.testing.assert_array_equal(carried, x)
    assert len(np.unique(draws)) == 6
    assert found.gradient == x.sum()


def test_devices_exchange_only_sums(tiny_model, mesh):
    """Every device already holds its rows of every part."""
    model, (params, batch) = tiny_model(
        "vqvae", 32, {"quantizer.dead_code_threshold": 0.0}
    )
    split = sharding.put_batch(jax.tree.map(np.asarray, batch), mesh)
    replicated = sharding.replicated(mesh)
    params = jax.device_put(params, replicated)

    def by_parts(params, batch):
        found = loss_and_gradient(model.loss, params, KEY, batch, accumulate=2)
        return found.gradient, model.update(params, KEY, found.carry)

    step = jax.jit(by_parts, out_shardings=replicated).lower(params, split).compile()
    text = step.as_text()
    assert "all-reduce" in text
    for other in ("all-gather", "all-to-all", "collective-permute"):
        assert other not in text
    assert_close(step(params, split), jax.jit(by_parts)(params, batch))


def memory_of_a_step(model, *, remat, accumulate):
    """Return the MiB of intermediate results of a step, from the compiled program.

    By default, XLA for CPUs schedules a program for concurrency and recomputes the
    activations of `remat` too early. With the option below it schedules for low memory,
    as on other platforms.
    """
    model = set_in_networks(model, "remat", remat)
    batch = {
        "image": jax.ShapeDtypeStruct((32, *model.image_shape), "uint8"),
        "mask": jax.ShapeDtypeStruct((32,), bool),
    }
    optimizer = optax.adam(1e-3)
    state = jax.eval_shape(lambda b: init_state(model, optimizer, KEY, b), batch)
    step = make_train_step(model, optimizer, accumulate=accumulate)
    compiled = (
        jax.jit(step, donate_argnums=0)
        .lower(state, batch)
        .compile({"xla_cpu_enable_concurrency_optimized_scheduler": False})
    )
    return compiled.memory_analysis().temp_size_in_bytes / 2**20


@pytest.mark.slow
def test_remat_and_accumulation_train_images_of_256_in_the_memory_of_128():
    network = {"channels": 64, "residual_channels": 64}
    small = VQVAE(
        image_shape=(128, 128, 3),
        encoder=Encoder(**network),
        decoder=Decoder(**network),
        quantizer=VQ(dim=8, codebook_init="uniform"),
    )
    large = dataclasses.replace(small, image_shape=(256, 256, 3))
    expected = memory_of_a_step(small, remat=False, accumulate=1)
    assert memory_of_a_step(large, remat=False, accumulate=1) > 3 * expected
    assert memory_of_a_step(large, remat=True, accumulate=8) < expected
