"""The gated PixelCNN depends on every earlier code and on no other.

Its layer equals loops in NumPy, on whole grids and row by row.

Numbers in brackets are rows of the list of known defects in docs/conformance.md.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import random_arrays

from vqvae_jax.networks.pixelcnn import Condition, GatedLayer, PixelCNN
from vqvae_jax.runtime.errors import UserError

K = 4


def build(grid, **options):
    """Return a network, random parameters and a batch of random codes."""
    rng = np.random.default_rng(0)
    sizes = {"num_codes": K, "layers": 2, "channels": 8, "kernel_size": 3} | options
    network = PixelCNN(codes_per_cell=grid[-1], **sizes)
    codes = jnp.asarray(rng.integers(K, size=(2, *grid)), "int32")
    condition = Condition(
        labels=jnp.array([0, 1]) if network.num_classes else None,
        vector=jnp.ones((2, 3)) if network.vector_features else None,
        features=jnp.ones((2, *grid[:2], 2)) if network.map_features else None,
    )
    shapes = jax.eval_shape(network.init, jax.random.key(0), codes, condition)
    return network, random_arrays(shapes, seed=rng), codes


class TestDependence:
    @pytest.mark.parametrize(
        ("grid", "options"),
        [
            # With enough layers the first code of the last column reaches the end.
            ((5, 4, 3), {"layers": 5}),
            ((4, 5, 1), {"layers": 3, "kernel_size": 5}),
            ((3, 4, 10), {"layers": 4}),
            # Without cell layers, and with two.
            ((2, 3, 2), {"layers": 3, "cell_layers": 0}),
            ((2, 3, 2), {"layers": 3, "cell_layers": 2}),
        ],
        ids=["5x4x3", "4x5x1", "3x4x10", "0 cell layers", "2 cell layers"],
    )
    def test_on_every_earlier_code_and_no_other(self, grid, options):
        """[16, 17] Changing a code changes all later logits and no other bit."""
        network, params, codes = build(grid, **options)
        apply = jax.jit(network.apply)
        before = np.asarray(apply(params, codes)).reshape(2, -1, K)
        num_positions = before.shape[1]
        flat = np.asarray(codes).reshape(2, -1)
        for position in range(num_positions):
            reached = np.zeros(num_positions, bool)
            for other in range(1, K):
                changed = flat.copy()
                changed[:, position] = (changed[:, position] + other) % K
                logits = apply(params, jnp.asarray(changed).reshape(codes.shape))
                after = np.asarray(logits).reshape(2, -1, K)
                reached |= (after != before).any(axis=(0, 2))
            np.testing.assert_array_equal(reached, np.arange(num_positions) > position)

    def test_gradients_come_from_every_earlier_code_and_no_other(self):
        """[16, 17] On a grid of 7x5x3, for each of its 105 positions.

        Each position holds a different code. The gradient of its logits with respect to
        the embedding tables therefore shows which positions they depend on.
        """
        height, width, per_cell = grid = (7, 5, 3)
        positions = height * width * per_cell
        network, params, _ = build(grid, layers=7, num_codes=positions)
        codes = jnp.arange(positions).reshape(1, *grid)
        weights = jnp.asarray(
            np.random.default_rng(1).normal(size=positions), "float32"
        )

        def by_position(params):
            logits = network.apply(params, codes).reshape(positions, positions)
            return logits @ weights

        found = jax.jit(jax.jacrev(by_position))(params)["params"]
        tables = (found["embedding"], found["cell_decoder"]["embedding"])
        reached = np.zeros((positions, positions), bool)
        index = np.arange(positions) % per_cell, np.arange(positions)
        for gradient in tables:
            reached |= np.any(gradient["tables"][:, *index] != 0, axis=-1)
        earlier = np.tri(positions, k=-1, dtype=bool)
        np.testing.assert_array_equal(reached, earlier)

    def test_on_each_part_of_the_condition_and_no_other_example(self):
        """A map at least reaches the logits of its cell, and none in earlier rows."""
        network, params, codes = build(
            (3, 4, 2), num_classes=3, vector_features=3, map_features=2, layers=4
        )
        apply = jax.jit(network.apply)
        rng = np.random.default_rng(0)
        condition = Condition(
            jnp.array([0, 1]),
            jnp.asarray(rng.normal(size=(2, 3)), "float32"),
            jnp.asarray(rng.normal(size=(2, 3, 4, 2)), "float32"),
        )
        logits = np.asarray(apply(params, codes, condition))
        for changed in (
            condition._replace(labels=jnp.array([0, 2])),
            condition._replace(vector=condition.vector.at[1, 2].add(1.0)),
            condition._replace(features=condition.features.at[1, 0, 0, 1].add(1.0)),
        ):
            others = np.asarray(apply(params, codes, changed))
            np.testing.assert_array_equal(others[0], logits[0])
            # It reaches every position, including the first.
            assert (others[1] != logits[1]).any(axis=-1).all()
        other_codes = codes.at[1].set((codes[1] + 1) % K)
        neighbour = np.asarray(apply(params, other_codes, condition))
        np.testing.assert_array_equal(neighbour[0], logits[0])
        last = condition._replace(features=condition.features.at[1, 2, 3, 0].add(1.0))
        others = np.asarray(apply(params, codes, last))
        assert (others[1, 2, 3] != logits[1, 2, 3]).all()
        np.testing.assert_array_equal(others[1, :2], logits[1, :2])


class TestErrors:
    def test_missing_and_unexpected_conditions_raise(self):
        codes = jnp.zeros((1, 2, 3, 1), jnp.int32)
        key = jax.random.key(0)
        for name, options, value, shape in (
            ("labels", {"num_classes": 5}, jnp.zeros(1, jnp.int32), "[1]"),
            ("vector", {"vector_features": 4}, jnp.zeros((1, 4)), "[1, 4]"),
            ("features", {"map_features": 6}, jnp.zeros((1, 2, 3, 6)), "[1, 2, 3, 6]"),
        ):
            needed = rf"^{name} of shape {re.escape(shape)} are needed"
            with pytest.raises(UserError, match=needed):
                PixelCNN(K, **options).init(key, codes)
            with pytest.raises(UserError, match=rf"^{name} were given .* without them"):
                PixelCNN(K).init(key, codes, Condition(**{name: value}))
            twice = jnp.concatenate([value, value])
            with pytest.raises(UserError, match=rf"^{name} must have shape"):
                PixelCNN(K, **options).init(key, codes, Condition(**{name: twice}))

    def test_a_map_of_another_grid_raises(self):
        codes = jnp.zeros((1, 2, 3, 1), jnp.int32)
        condition = Condition(features=jnp.zeros((1, 3, 2, 6)))
        expected = r"\[1, 2, 3, 6\] for 1 grids of 2x3 cells, got \[1, 3, 2, 6\]"
        with pytest.raises(UserError, match=expected):
            PixelCNN(K, map_features=6).init(jax.random.key(0), codes, condition)

    def test_other_shapes_and_even_kernels_raise(self):
        codes = jnp.zeros((1, 2, 3, 2), jnp.int32)
        with pytest.raises(UserError, match=r"\[B, H, W, 1\], got \(1, 2, 3, 2\)"):
            PixelCNN(K).init(jax.random.key(0), codes)
        for size in (4, 1):
            with pytest.raises(
                UserError, match=f"^kernel_size must be odd .* got {size}"
            ):
                PixelCNN(K, 2, kernel_size=size).init(jax.random.key(0), codes)


def test_dropout_is_active_only_with_a_key():
    network, params, codes = build((2, 3, 1), dropout=0.5)
    apply = jax.jit(network.apply)
    plain = apply(params, codes)
    np.testing.assert_array_equal(apply(params, codes), plain)
    dropped = [
        np.asarray(apply(params, codes, rngs={"dropout": jax.random.key(n)}))
        for n in (0, 0, 1)
    ]
    np.testing.assert_array_equal(dropped[0], dropped[1])
    assert (dropped[0] != plain).any()
    assert (dropped[0] != dropped[2]).any()


def dense(inputs, outputs):
    return inputs * outputs + outputs


@pytest.mark.parametrize("layers", [1, 3])
def test_parameters_are_counted_by_hand(layers):
    """[14] No two layers share parameters."""
    c, f, classes, reach = 3, 8, 5, 1
    network = PixelCNN(
        K,
        c,
        num_classes=classes,
        vector_features=2,
        map_features=7,
        layers=layers,
        channels=f,
        kernel_size=3,
        cell_layers=2,
    )
    params = jax.eval_shape(
        network.init,
        jax.random.key(0),
        jnp.zeros((1, 2, 3, c), jnp.int32),
        Condition(jnp.zeros(1, jnp.int32), jnp.zeros((1, 2)), jnp.zeros((1, 2, 3, 7))),
    )
    layer = (
        dense((reach + 1) * 3 * f, 2 * f)  # the vertical stack's 2x3 convolution
        + dense((reach + 1) * f, 2 * f)  # the horizontal stack's 1x2
        + dense(2 * f, 2 * f)  # from the vertical to the horizontal
        + dense(f + 2, 4 * f)  # the label and the vector, to the gates of both
        + dense(7, 4 * f)  # the map
        + dense(f, 2 * f)  # residual and skip
    )
    cell = (
        c * K * f  # embeddings
        + c * f  # the position in the cell
        + 2 * (dense(f, 2 * f) + dense(f, f))  # two layers
        + c * dense(f, K)  # logits
    )
    expected = c * K * f + classes * f + layers * layer + dense(f, f) + cell
    leaves = jax.tree.leaves(params)
    assert sum(leaf.size for leaf in leaves) == expected
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float32")}


def test_bfloat16_gives_float32_logits():
    network, params, codes = build((3, 2, 2))
    exact = jax.jit(network.apply)(params, codes)
    coarse = jax.jit(network.clone(dtype="bfloat16").apply)(params, codes)
    assert exact.dtype == coarse.dtype == jnp.float32
    np.testing.assert_allclose(coarse, exact, atol=0.05)
    # It was computed in bfloat16.
    assert (np.asarray(coarse) != np.asarray(exact)).any()


# The gated layer.

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


def test_dropout_scales_or_drops_each_gated_output(case):
    """Read from the skip output, whose projection is the identity here."""
    params, inputs = case
    identity = jnp.tile(jnp.eye(F), 2)
    into_skip = {"kernel": identity, "bias": jnp.zeros(2 * F)}
    params = {"params": params["params"] | {"residual_and_skip": into_skip}}
    layer, outputs = LAYER.clone(dropout=0.25), []
    for rngs in (None, *({"dropout": jax.random.key(n)} for n in range(50))):
        outputs.append(layer.apply(params, *inputs, method=both_stacks, rngs=rngs)[3])
    whole, dropped = np.asarray(outputs[0]), np.asarray(outputs[1:])
    is_kept = dropped != 0
    np.testing.assert_allclose(
        dropped, np.where(is_kept, whole / 0.75, 0), rtol=1e-5, atol=1e-7
    )
    # 7200 draws.
    assert is_kept.mean() == pytest.approx(0.75, abs=0.02)
