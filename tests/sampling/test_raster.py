"""The cached sampler against the naive one, and the stepwise one against the logits."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from frequency_checks import assert_follow
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from tiny_models import random_arrays

from vqvae_jax import sampling
from vqvae_jax.networks.pixelcnn import UNCONDITIONAL, Condition, PixelCNN
from vqvae_jax.runtime.errors import UserError
from vqvae_jax.sampling import raster

K, BATCH = 5, 3


def build(grid, *, batch=BATCH, condition=(), num_codes=K, **options):
    """Return a network, random parameters, a condition with the named parts, codes."""
    rng = np.random.default_rng(0)
    parts = {
        "labels": ("num_classes", 4, lambda: rng.integers(4, size=batch)),
        "vector": ("vector_features", 3, lambda: rng.normal(size=(batch, 3))),
        "features": ("map_features", 2, lambda: rng.normal(size=(batch, *grid[:2], 2))),
    }
    sizes = {"layers": 2, "channels": 16, "kernel_size": 5} | options
    sizes |= {parts[name][0]: parts[name][1] for name in condition}
    network = PixelCNN(num_codes, grid[-1], **sizes)
    values = {name: jnp.asarray(parts[name][2]()) for name in condition}
    condition = Condition(**values)
    codes = jnp.asarray(rng.integers(num_codes, size=(batch, *grid)), "int32")
    shapes = jax.eval_shape(network.init, jax.random.key(0), codes, condition)
    return network, random_arrays(shapes, seed=rng), condition, codes


ALL = ("labels", "vector", "features")


@pytest.mark.parametrize(
    ("grid", "condition", "options"),
    [
        ((5, 4, 1), (), {}),
        ((4, 5, 3), (), {"kernel_size": 3}),
        ((2, 3, 10), ("labels",), {"cell_layers": 2}),
        ((4, 3, 3), ALL, {}),
        ((3, 4, 1), ("features",), {"cell_layers": 0, "layers": 1}),
        # A window wider than the grid.
        ((2, 2, 1), ("vector",), {"kernel_size": 7}),
    ],
    ids=str,
)
class TestSameAsNaive:
    def test_logits(self, grid, condition, options):
        """Logits of given codes one by one equal those of the whole grid at once."""
        network, params, condition, codes = build(grid, condition=condition, **options)
        whole = jax.jit(network.apply)(params, codes, condition)
        by_position = jnp.moveaxis(codes, 0, -1)

        @jax.jit
        def walk(rows, leading=None):
            return raster.walk(
                network,
                params,
                lambda logits, code: (code, logits),
                rows,
                shape=codes.shape,
                condition=condition,
                leading=leading,
            )

        one_by_one = jnp.moveaxis(walk(by_position), 3, 0)
        assert np.std(whole) > 0.1
        np.testing.assert_allclose(one_by_one, whole, atol=1e-5)
        after = jnp.moveaxis(walk(by_position[1:], codes[:, :1]), 3, 0)
        np.testing.assert_allclose(after, whole[:, 1:], atol=1e-5)

    def test_codes(self, grid, condition, options):
        network, params, condition, codes = build(grid, condition=condition, **options)
        shape = codes.shape

        @jax.jit
        def fast(key, temperature):
            adjust = functools.partial(sampling.truncated, temperature=temperature)
            return sampling.cached(
                network, params, key, shape=shape, condition=condition, adjust=adjust
            )

        @jax.jit
        def slow(key, temperature):
            adjust = functools.partial(sampling.truncated, temperature=temperature)
            return sampling.ancestral(
                lambda codes: network.apply(params, codes, condition),
                key,
                shape=shape,
                adjust=adjust,
            )

        seen = set()
        for seed, temperature in enumerate((1.0, 0.7, 1.0, 1.5)):
            drawn = fast(jax.random.key(seed), temperature)
            assert drawn.dtype == jnp.int32
            np.testing.assert_array_equal(
                drawn, slow(jax.random.key(seed), temperature)
            )
            seen |= set(np.asarray(drawn).flat)
        # Any samplers would agree on a single repeated code.
        assert seen == set(range(K))


class TestGiven:
    def test_given_codes_are_kept_and_the_rest_equals_the_naive_sampler(self):
        network, params, condition, codes = build((4, 4, 3), condition=("labels",))
        free = np.random.default_rng(1).random(codes.shape) < 0.6
        given = jnp.where(free, sampling.FREE, codes)
        options = {"shape": codes.shape, "given": given}
        drawn = jax.jit(
            lambda key: sampling.cached(
                network, params, key, condition=condition, **options
            )
        )(jax.random.key(0))
        np.testing.assert_array_equal(drawn[~free], codes[~free])
        naive = jax.jit(
            lambda key: sampling.ancestral(
                lambda codes: network.apply(params, codes, condition), key, **options
            )
        )(jax.random.key(0))
        np.testing.assert_array_equal(drawn, naive)
        assert (drawn[free] != codes[free]).any()

    @pytest.mark.parametrize("rows", [1, 3])
    def test_leading_rows_equal_given_rows(self, rows):
        """Skipping the horizontal stack in the leading rows changes nothing."""
        network, params, condition, codes = build((4, 3, 2), condition=ALL)
        given = codes.at[:, rows:].set(sampling.FREE)
        draw = functools.partial(
            sampling.cached,
            network,
            params,
            jax.random.key(0),
            shape=codes.shape,
            condition=condition,
        )
        np.testing.assert_array_equal(
            jax.jit(draw)(leading=codes[:, :rows]), jax.jit(draw)(given=given)
        )


def test_copies_with_different_conditions_share_their_codes():
    network, params, condition, codes = build((3, 3, 2), condition=("labels",))
    both = Condition(jnp.concatenate([condition.labels, (condition.labels + 1) % 4]))
    adjust = functools.partial(sampling.guided, scale=2.0)
    options = {"shape": codes.shape, "adjust": adjust, "copies": 2}
    drawn = jax.jit(
        lambda key: sampling.cached(network, params, key, condition=both, **options)
    )(jax.random.key(0))
    naive = jax.jit(
        lambda key: sampling.ancestral(
            lambda codes: network.apply(params, codes, both), key, **options
        )
    )(jax.random.key(0))
    np.testing.assert_array_equal(drawn, naive)


def test_frequencies_are_the_enumerated_probabilities():
    """Chi-square test of 20 000 samples of a 2x2 grid, K = 3, against all 81 grids."""
    draws = 20_000
    network, params, _, _ = build((2, 2, 1), num_codes=3, layers=2, kernel_size=3)
    grids = np.array(list(itertools.product(range(3), repeat=4)))
    logits = jax.jit(network.apply)(
        params, jnp.asarray(grids, "int32").reshape(-1, 2, 2, 1)
    )
    log_p = np.asarray(jax.nn.log_softmax(logits), np.float64).reshape(81, 4, 3)
    p = np.exp(np.take_along_axis(log_p, grids[..., None], -1).sum((1, 2)))
    assert p.sum() == pytest.approx(1, abs=1e-5)
    assert p.max() > 3 * p.min()
    draw = functools.partial(sampling.cached, network, params, shape=(draws, 2, 2, 1))
    codes = jax.jit(draw)(jax.random.key(0))
    index = np.asarray(codes).reshape(draws, 4) @ 3 ** np.arange(4)[::-1]
    assert_follow(np.bincount(index, minlength=81), p)


def test_progress_is_called_after_each_row():
    network, params, _, codes = build((4, 2, 1))
    rows = []
    sampling.cached(
        network, params, jax.random.key(0), shape=codes.shape, progress=rows.append
    )
    jax.effects_barrier()
    assert [int(row) for row in rows] == [1, 2, 3, 4]


def test_a_sharded_batch_is_sampled_without_communication():
    """The codes are the same and sharded as the labels."""
    network, params, condition, codes = build((3, 3, 2), batch=16, condition=ALL)

    @jax.jit
    def draw(condition):
        return sampling.cached(
            network, params, jax.random.key(0), shape=codes.shape, condition=condition
        )

    mesh = Mesh(np.array(jax.devices()), ("data",))
    split = jax.device_put(condition, NamedSharding(mesh, PartitionSpec("data")))
    drawn = draw(split)
    assert drawn.sharding.spec[0] == "data"
    np.testing.assert_array_equal(drawn, draw(condition))
    program = draw.lower(split).compile().as_text()
    for word in ("all-gather", "all-reduce", "all-to-all", "collective-permute"):
        assert word not in program


def test_bfloat16_runs_and_keeps_float32_logits():
    network, params, _, codes = build((3, 3, 2), dtype="bfloat16")
    by_position = jnp.moveaxis(codes, 0, -1)
    walk = functools.partial(
        raster.walk,
        network,
        params,
        lambda logits, code: (code, logits),
        shape=codes.shape,
        condition=UNCONDITIONAL,
    )
    logits = jax.jit(walk)(by_position)
    assert logits.dtype == jnp.float32
    whole = jax.jit(network.apply)(params, codes)
    np.testing.assert_allclose(jnp.moveaxis(logits, 3, 0), whole, atol=0.05)


def test_a_legacy_key_samples_the_same_codes():
    network, params, _, _ = build((2, 3, 2), layers=1, channels=4)

    @jax.jit
    def draw(key):
        return raster.cached(network, params, key, shape=(BATCH, 2, 3, 2))

    expected = draw(jax.random.key(3))
    assert len(np.unique(expected)) > 1
    np.testing.assert_array_equal(draw(jax.random.PRNGKey(3)), expected)


def test_a_condition_of_another_grid_is_rejected():
    network, params, condition, codes = build((3, 4, 1), condition=("features",))
    turned = Condition(features=condition.features.swapaxes(1, 2))
    with pytest.raises(UserError, match=r"features must have shape \[3, 3, 4, 2\]"):
        sampling.cached(
            network, params, jax.random.key(0), shape=codes.shape, condition=turned
        )


STEPWISE = ("labels", "features")


def walk_stepwise(network, params, condition, codes):
    """Respond with the given codes; return the codes and logits of `stepwise`."""
    responses = iter(np.moveaxis(codes, 0, -1).reshape(-1, BATCH))
    seen = []

    def respond(logits):
        seen.append(logits)
        return next(responses)

    found = sampling.stepwise(
        network, params, respond, shape=codes.shape, condition=condition
    )
    return found, np.stack(seen, axis=1).reshape(*codes.shape, K)


@pytest.mark.parametrize(
    ("grid", "options"),
    [((4, 3, 1), {}), ((2, 3, 3), {"kernel_size": 3, "cell_layers": 2})],
    ids=str,
)
def test_stepwise_logits_equal_those_of_the_whole_grid(grid, options):
    network, params, condition, codes = build(grid, condition=STEPWISE, **options)
    whole = jax.jit(network.apply)(params, codes, condition)
    found, logits = walk_stepwise(network, params, condition, codes)
    np.testing.assert_array_equal(found, codes)
    assert np.std(whole) > 0.1
    np.testing.assert_allclose(logits, whole, atol=1e-5)


def test_stepwise_logits_are_bit_identical_given_the_same_earlier_codes():
    """Later codes do not change them."""
    network, params, condition, codes = build((3, 2, 2), condition=STEPWISE)
    _, logits = walk_stepwise(network, params, condition, codes)
    codes = np.asarray(codes)
    other = codes.copy()
    other[:, 1, 1, 1:] = (codes[:, 1, 1, 1:] + 1) % K
    other[:, 2] = (codes[:, 2] + 2) % K
    _, again = walk_stepwise(network, params, condition, other)
    np.testing.assert_array_equal(again[:, 0], logits[:, 0])
    np.testing.assert_array_equal(again[:, 1, :, 0], logits[:, 1, :, 0])
    assert (again[:, 2] != logits[:, 2]).any()


def test_stepwise_rejects_a_missing_condition():
    network, params, condition, codes = build((3, 2, 1), condition=STEPWISE)
    with pytest.raises(UserError, match=r"labels of shape \[3\] are needed"):
        walk_stepwise(network, params, condition._replace(labels=None), codes)
