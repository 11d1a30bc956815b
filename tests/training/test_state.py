"""One training step: against NumPy, on any number of devices, with keys of its own."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

from vqvae_jax import metrics
from vqvae_jax.training import sharding
from vqvae_jax.training.state import (
    Model,
    TrainState,
    average_params,
    init_state,
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
    """Plain gradient descent on "w", so that NumPy can follow."""
    labels = {"w": "move", "seen": "stay"}
    transforms = {"move": optax.sgd(RATE), "stay": optax.set_to_zero()}
    return optax.partition(transforms, labels)


@pytest.fixture(scope="module")
def batches(points):
    """20 batches of 16 with every second example masked: one on each device."""
    source = points(16 * STEPS)
    mask = np.arange(16) % 2 > 0
    return [
        {"x": x, "y": y, "mask": mask}
        for x, y in zip(
            source.x.reshape(STEPS, 16, 2), source.y.reshape(STEPS, 16), strict=True
        )
    ]


@pytest.fixture(scope="module")
def oracle(batches):
    """Gradient descent in float64: [w, seen], their average, last loss and norm."""
    w = np.array([0.3, 0.7])
    average = np.array([0.3, 0.7, 0.0])
    for t, batch in enumerate(batches):
        x, y = batch["x"][batch["mask"]], batch["y"][batch["mask"]]
        error = x @ w - y
        gradient = 2 * error @ x / len(x)
        w = w - RATE * gradient
        # 0.1, 2/11, 3/12, ... and from the 14th step on DECAY.
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
    """[7, and the train step inside pmap] NumPy's parameters after 20 steps."""

    def test_one_device(self, line, batches, oracle):
        step = jax.jit(make_step(line(noise=0.0)))
        check(*run(step, start(), batches), oracle)

    def test_eight_devices_under_jit(self, line, batches, oracle, mesh):
        replicated = sharding.replicated(mesh)
        step = jax.jit(make_step(line(noise=0.0)), out_shardings=replicated)
        split = [sharding.put_batch(batch, mesh) for batch in batches]
        check(*run(step, jax.device_put(start(), replicated), split), oracle)

    @pytest.mark.parametrize("check_vma", [True, False])
    def test_eight_devices_under_shard_map(
        self, line, batches, oracle, mesh, check_vma
    ):
        inner = make_step(line(noise=0.0), axis_name="data")
        step = jax.shard_map(
            inner,
            mesh=mesh,
            in_specs=(PartitionSpec(), PartitionSpec("data")),
            out_specs=PartitionSpec(),
            check_vma=check_vma,
        )
        check(*run(jax.jit(step), start(), batches), oracle)

    def test_eight_devices_under_pmap(self, line, batches, oracle):
        inner = make_step(line(noise=0.0), axis_name="data")
        state, values = run(
            jax.pmap(inner, axis_name="data"),
            jax.tree.map(eight_times, start()),
            [{k: v.reshape(8, 2, *v.shape[1:]) for k, v in b.items()} for b in batches],
        )
        for device in range(8):
            check(*jax.tree.map(lambda x, i=device: x[i], (state, values)), oracle)


def eight_times(x):
    if isinstance(x, jax.Array):
        return jnp.stack([x] * 8)  # The key, which is no NumPy array.
    return np.stack([x] * 8)


class Draws:
    """Keeps what its loss and its update drew."""

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


def test_devices_and_steps_draw_for_themselves_and_updates_alike():
    """Noise differs between devices; what changes parameters on each must not."""
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


def test_parameters_and_run_have_keys_of_their_own(line):
    assert isinstance(line(), Model)
    init = jax.jit(lambda key, batch: init_state(line(), optimizer(), key, batch))
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


def test_the_average_starts_from_the_parameters_in_memory_of_its_own(line, batches):
    """A step may overwrite the state that it is given."""
    for where in (lambda f: f, jax.jit):
        init = where(
            lambda: init_state(
                line(), optimizer(), KEY, {"x": jnp.zeros((2, 2))}, params_ema_decay=0.9
            )
        )
        # What NumPy looks at stays in memory, so it looks at another one.
        state, before = init(), jax.device_get(init())
        jax.tree.map(np.testing.assert_array_equal, before.average, before.params)
        old = state.average["w"]
        step = jax.jit(make_step(line(noise=0.0)), donate_argnums=0)
        state, _ = step(state, batches[0])
        assert old.is_deleted()
        w, new = before.params["w"], state.params["w"]
        np.testing.assert_allclose(state.average["w"], 0.1 * w + 0.9 * new, rtol=1e-6)


def test_what_is_no_float_is_not_averaged():
    old = {"n": np.int32(5), "flag": np.bool_(False), "half": np.float16(2)}
    new = {"n": np.int32(8), "flag": np.bool_(True), "half": np.float16(4)}
    found = jax.jit(lambda: average_params(old, new, jnp.int32(90), decay=0.5))()
    assert (found["n"], found["flag"], found["half"]) == (8, True, 3)
    assert (found["n"].dtype, found["flag"].dtype) == ("int32", "bool")
