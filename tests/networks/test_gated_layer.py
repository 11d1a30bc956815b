"""A gated layer, against loops in NumPy, and row by row."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import random_arrays

from vqvae_jax.networks.gated_layer import GatedLayer

B, H, W, F, REACH = 2, 4, 3, 6, 1
LAYER = GatedLayer(channels=F, reach=REACH, dropout=0.0, dtype=jnp.float32)


def both_stacks(layer, vertical, horizontal, vector, features):
    v, guide = layer.vertical_stack(vertical, vector, features, zeros_above=REACH)
    return v, guide, *layer.horizontal_stack(horizontal, guide, zeros_left=REACH)


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(0)
    sizes = (B, H, W, F), (B, H, W, F), (B, 5), (B, H, W, 2)
    inputs = tuple(jnp.asarray(rng.normal(size=size), "float32") for size in sizes)
    shapes = jax.eval_shape(
        lambda key: LAYER.init(key, *inputs, method=both_stacks), jax.random.key(0)
    )
    return random_arrays(shapes, scale=0.5, seed=rng), inputs


def gate(x):
    a, b = np.split(x, 2, axis=-1)
    return np.tanh(a) / (1 + np.exp(-b))


def expected(params, vertical, horizontal, vector, features):
    """Compute each sum of the layer, cell by cell."""
    p = jax.tree.map(np.float64, params["params"])

    def dense(name, x):
        return x @ p[name]["kernel"] + p[name]["bias"]

    out = np.zeros((4, B, H, W, 2 * F))
    for b, i, j in np.ndindex(B, H, W):
        v = p["vertical"]["bias"].copy()
        for r in range(REACH + 1):
            for c in range(-REACH, REACH + 1):
                if i - r >= 0 and 0 <= j + c < W:
                    kernel = p["vertical"]["kernel"][REACH - r, REACH + c]
                    v += vertical[b, i - r, j + c] @ kernel
        h = p["horizontal"]["bias"].copy()
        for c in range(REACH + 1):
            if j - c >= 0:
                kernel = p["horizontal"]["kernel"][0, REACH - c]
                h += horizontal[b, i, j - c] @ kernel
        guide = dense("vertical_to_horizontal", v)
        known = dense("vector", vector[b]) + dense("features", features[b, i, j])
        for_v, for_h = np.split(known, 2)
        guide = guide + for_h
        residual, skip = np.split(dense("residual_and_skip", gate(h + guide)), 2)
        out[0, b, i, j, :F] = gate(v + for_v)
        out[1, b, i, j] = guide
        out[2, b, i, j, :F] = horizontal[b, i, j] + residual
        out[3, b, i, j, :F] = skip
    return out[0, ..., :F], out[1], out[2, ..., :F], out[3, ..., :F]


def test_whole_grids_equal_loops(case):
    params, inputs = case
    apply = jax.jit(lambda p, x: LAYER.apply(p, *x, method=both_stacks))
    for ours, theirs in zip(
        apply(params, inputs), expected(params, *inputs), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_the_last_row_and_cell_alone_equal_those_of_the_grid(case):
    params, (vertical, horizontal, vector, features) = case

    def apply(method, *inputs, **zeros):
        return LAYER.apply(params, *inputs, method=method, **zeros)

    v, guide = apply("vertical_stack", vertical, vector, features, zeros_above=REACH)
    out, skip = apply("horizontal_stack", horizontal, guide, zeros_left=REACH)
    row = vertical[:, -REACH - 1 :], vector, features[:, -1:]
    row_v, row_guide = apply("vertical_stack", *row, zeros_above=0)
    np.testing.assert_allclose(row_v, v[:, -1:], atol=1e-5)
    np.testing.assert_allclose(row_guide, guide[:, -1:], atol=1e-5)
    cell = horizontal[:, -1:, -REACH - 1 :], row_guide[:, :, -1:]
    cell_out, cell_skip = apply("horizontal_stack", *cell, zeros_left=0)
    np.testing.assert_allclose(cell_out, out[:, -1:, -1:], atol=1e-5)
    np.testing.assert_allclose(cell_skip, skip[:, -1:, -1:], atol=1e-5)
