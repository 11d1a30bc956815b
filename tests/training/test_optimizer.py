"""Schedules compared with closed forms, Adam with its equations in NumPy."""

import jax
import numpy as np
import pytest
from line_runs import make_config

from vqvae_jax.training.config import learning_rate, make_optimizer

PEAK, STEPS = 0.05, 20


@pytest.mark.parametrize("warmup", [0, 4])
@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_schedules_equal_closed_forms(schedule, warmup):
    config = make_config(schedule=schedule, warmup_steps=warmup)
    step = np.arange(STEPS + 1)
    expected = np.full(STEPS + 1, PEAK)
    if schedule == "cosine":
        phase = (step - warmup) / (STEPS - warmup)
        expected = PEAK * (1 + np.cos(np.pi * phase)) / 2
    if warmup:
        expected = np.where(step < warmup, PEAK * step / warmup, expected)
    found = np.broadcast_to(jax.jit(learning_rate(config))(step), step.shape)
    np.testing.assert_allclose(found, expected, atol=1e-7)


def test_a_warm_up_longer_than_the_run_is_linear():
    for schedule in ("constant", "cosine"):
        config = make_config(schedule=schedule, warmup_steps=40)
        found = jax.jit(learning_rate(config))(np.arange(STEPS))
        np.testing.assert_allclose(found, PEAK * np.arange(STEPS) / 40, atol=1e-7)


def adam(gradients, rates, *, b1=0.9, b2=0.999, eps=1e-8):
    """Return the sum of updates after each step of algorithm 1 of Kingma and Ba."""
    m = v = total = np.zeros_like(gradients[0])
    totals = []
    for t, (g, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        total = total - rate * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
        totals.append(total)
    return np.stack(totals)


def run(config, gradients):
    """Return the sum of updates of "w" after each step; "table" is frozen."""
    params = {"w": np.zeros_like(gradients[0], "f4"), "table": np.ones((9, 7), "f4")}
    optimizer = make_optimizer(config, {"w": True, "table": False})
    state = optimizer.init(params)
    update = jax.jit(optimizer.update)
    totals = []
    for gradient in gradients:
        # The gradient of the table is large, to show that clipping ignores it.
        gradient = {"w": np.asarray(gradient, "f4"), "table": 1e3 * params["table"]}
        updates, state = update(gradient, state, params)
        np.testing.assert_array_equal(updates["table"], 0.0)
        params["w"] = params["w"] + np.asarray(updates["w"])
        totals.append(params["w"])
    return np.stack(totals)


@pytest.fixture(scope="module")
def gradients():
    """Five gradients with norms from 0.1 to 30."""
    directions = np.random.default_rng(0).normal(size=(5, 6))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return directions * np.array([0.1, 30.0, 0.5, 3.0, 0.9])[:, None]


def test_first_steps_equal_adam(gradients):
    expected = adam(gradients, np.full(5, PEAK))
    np.testing.assert_allclose(run(make_config(), gradients), expected, rtol=1e-4)


def test_clipping_scales_large_gradients_and_warm_up_starts_at_zero(gradients):
    config = make_config(gradient_clip=1.0, warmup_steps=4)
    norms = np.linalg.norm(gradients, axis=1, keepdims=True)
    clipped = gradients / np.maximum(norms, 1.0)
    rates = PEAK * np.minimum(np.arange(5) / 4, 1.0)
    expected = adam(clipped, rates)
    np.testing.assert_allclose(run(config, gradients), expected, rtol=1e-4, atol=1e-7)
    assert np.abs(expected - adam(gradients, rates)).max() > 0.01


def test_weight_decay_shrinks_matrices_by_rate_and_decay():
    """AdamW: without a gradient, each step multiplies them by 1 - rate * decay."""
    config = make_config(weight_decay=0.5, warmup_steps=2)
    params = {
        "kernel": np.full((2, 3), 4.0, "f4"),
        "bias": np.full(3, 4.0, "f4"),
        "table": np.full((2, 3), 4.0, "f4"),
    }
    optimizer = make_optimizer(config, {"kernel": True, "bias": True, "table": False})
    zeros = jax.tree.map(np.zeros_like, params)
    state = optimizer.init(params)
    expected = 4.0
    for rate in PEAK * np.array([0.0, 0.5, 1.0, 1.0]):
        updates, state = optimizer.update(zeros, state, params)
        params = jax.tree.map(lambda p, u: p + np.asarray(u), params, updates)
        expected *= 1 - 0.5 * rate
    np.testing.assert_allclose(params["kernel"], expected, rtol=1e-5)
    np.testing.assert_array_equal(params["bias"], 4.0)
    np.testing.assert_array_equal(params["table"], 4.0)


def test_frozen_leaves_have_no_optimiser_state():
    abstract = {"w": np.ones(3), "table": np.ones((100, 7))}
    optimizer = make_optimizer(make_config(), {"w": True, "table": False})
    state = jax.eval_shape(optimizer.init, abstract)
    shapes = [x.shape for x in jax.tree.leaves(state)]
    assert shapes.count((3,)) == 2  # Adam's two moments
    assert (100, 7) not in shapes
