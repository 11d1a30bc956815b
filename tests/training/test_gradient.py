"""The gradient by parts is the whole batch's, in less memory."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vqvae_jax.models.vqvae import VQVAE
from vqvae_jax.training import sharding
from vqvae_jax.training.gradient import gradient_of
from vqvae_jax.training.state import TrainState, init_state, make_train_step

KEY = jax.random.key(5)


def assert_close(found, expected, tolerance=1e-5):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance),
        found,
        expected,
    )


def one_step(model, params, batch, **options):
    """Return the parameters after a step of gradient descent, and its metrics."""
    transforms = {True: optax.sgd(0.1), False: optax.set_to_zero()}
    optimizer = optax.partition(transforms, model.trainable(params))

    def step(params, batch):
        state = TrainState(jnp.zeros((), "i4"), params, optimizer.init(params), KEY)
        state, metrics = make_train_step(model, optimizer, **options)(state, batch)
        return state.params, metrics

    return jax.jit(step)(params, batch)


# What a part draws at random differs from what the whole does.
WITHOUT_DRAWS = {
    "vqvae": {},
    "speech": {"jitter": 0.0},
    "hierarchy": {},
    "pixelcnn": {"dropout": 0.0},
    "prior": {"dropout": 0.0, "label_dropout": 0.0},
    "sequence_prior": {"dropout": 0.0},
    "video": {"dropout": 0.0},
}
DEFAULT = ("vqvae",)
SLOW = [
    pytest.param(name, marks=pytest.mark.slow)
    for name in WITHOUT_DRAWS
    if name not in DEFAULT
]


@pytest.mark.parametrize("name", [*DEFAULT, *SLOW])
def test_a_step_by_parts_is_the_whole_batchs(name, tiny_model):
    """Parameters, EMA and restarts of the codebook, and every metric.

    Parts differ in what is padding, and speech has means over samples and over codes.
    """
    model, (params, batch) = tiny_model(name, 12, **WITHOUT_DRAWS[name])
    expected = one_step(model, params, batch)
    moved = jax.tree.map(lambda a, b: abs(a - b).max(), expected[0], params)
    assert np.mean(np.array(jax.tree.leaves(moved)) > 1e-4) > 0.8
    assert_close(one_step(model, params, batch, accumulate=3), expected)


def test_shares_add_up_to_the_mean_over_what_is_no_padding(line):
    """Against NumPy, with a part that is nothing but padding."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(12, 2)), rng.normal(size=12)
    # Part j of three takes rows j, j + 3, ...
    mask = np.arange(12) % 3 > 0
    mask[4] = False
    batch = {"x": x.astype("f4"), "y": y.astype("f4"), "mask": mask}
    params = {"w": np.array([0.3, 0.7], "f4"), "seen": np.zeros((), "f4")}
    model = line(noise=0.0)
    found = jax.jit(
        lambda params, batch: gradient_of(model.loss, params, KEY, batch, accumulate=3)
    )(params, batch)
    error = (x @ params["w"] - y)[mask]
    gradient = 2 * error @ x[mask] / mask.sum()
    np.testing.assert_allclose(found.gradient["w"], gradient, rtol=1e-5)
    total, weight = found.metrics["error"]
    np.testing.assert_allclose((total, weight), ((error**2).sum(), mask.sum()), 1e-5)
    np.testing.assert_allclose(found.metrics["loss"], (np.mean(error**2), 1), 1e-5)


def test_parts_have_keys_of_their_own_and_what_they_carry_is_in_order():
    def loss(params, key, batch):
        return params * batch["x"].sum(), ({}, (batch["x"], jax.random.normal(key, 2)))

    x = np.arange(6.0, dtype="f4")
    found = gradient_of(
        loss, 1.0, KEY, {"x": x, "mask": np.ones(6, bool)}, accumulate=3
    )
    carried, draws = found.carry
    np.testing.assert_array_equal(carried, x)
    assert len(np.unique(draws)) == 6
    assert found.gradient == x.sum()


def test_devices_keep_their_rows(tiny_model, mesh):
    """Nothing but sums goes from one device to another."""
    model, (params, batch) = tiny_model("vqvae", 32, restart_below=0.0)
    split = sharding.put_batch(jax.tree.map(np.asarray, batch), mesh)
    replicated = sharding.replicated(mesh)
    params = jax.device_put(params, replicated)

    def by_parts(params, batch):
        found = gradient_of(model.loss, params, KEY, batch, accumulate=2)
        return found.gradient, model.update(params, KEY, found.carry)

    step = jax.jit(by_parts, out_shardings=replicated).lower(params, split).compile()
    text = step.as_text()
    assert "all-reduce" in text
    for other in ("all-gather", "all-to-all", "collective-permute"):
        assert other not in text
    assert_close(step(params, split), jax.jit(by_parts)(params, batch))


def memory_of_a_step(model, *, remat, accumulate):
    """Return the MiB of a step's intermediate results, from the compiled program.

    XLA for CPUs orders a program for threads to run side by side, and computes what
    `remat` left for later long before; told not to, it orders for little memory, as for
    other platforms.
    """
    model = dataclasses.replace(model, remat=remat)
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
def test_images_of_256_train_in_the_memory_of_those_of_128():
    options = {"units": 64, "residual_units": 64, "dim": 8, "codebook_init": "uniform"}
    small = VQVAE(image_shape=(128, 128, 3), **options)
    large = VQVAE(image_shape=(256, 256, 3), **options)
    expected = memory_of_a_step(small, remat=False, accumulate=1)
    assert memory_of_a_step(large, remat=False, accumulate=1) > 3 * expected
    assert memory_of_a_step(large, remat=True, accumulate=8) < expected
