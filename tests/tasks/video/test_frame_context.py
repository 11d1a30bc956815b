"""The context depends on all earlier frames and actions and on no others."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqvae_jax.tasks.video.frame_context import FrameContext

GRID, TIME = (2, 3, 1), 5


def build(*, with_actions=True, **options):
    """A network, random parameters, and a clip in which all codes are distinct."""
    num_codes = TIME * GRID[0] * GRID[1]
    sizes = {"num_codes": num_codes, "layers": 3, "channels": 6} | options
    network = FrameContext(num_actions=TIME - 1 if with_actions else 0, **sizes)
    rng = np.random.default_rng(0)
    codes = jnp.asarray(rng.permutation(num_codes).reshape(1, TIME, *GRID), "int32")
    actions = jnp.arange(TIME - 1)[None]
    shapes = jax.eval_shape(network.init, jax.random.key(0), codes, actions)
    params = jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(size=leaf.shape) / 2, "float32"), shapes
    )
    return network, params, codes, actions


def reached(network, params, codes, actions):
    """The frames and the actions that the gradient of each map reaches."""

    def by_time(params):
        maps = network.apply(params, codes, actions)[0]
        return jnp.square(maps).sum(axis=(1, 2, 3))

    gradient = jax.jit(jax.jacrev(by_time))(params)["params"]
    of_codes = gradient["CodeEmbedding_0"]["tables"][:, 0, codes[0].reshape(TIME, -1)]
    of_actions = gradient["Embed_0"]["embedding"]
    return np.any(of_codes != 0, axis=(2, 3)), np.any(of_actions != 0, axis=2)


def test_gradients_reach_exactly_the_earlier_frames_and_actions():
    frames, actions = reached(*build())
    earlier = np.arange(TIME)[None, :] < np.arange(TIME)[:, None]
    np.testing.assert_array_equal(frames, earlier)
    # Action s leads from frame s to the next frame, whose map can depend on it.
    np.testing.assert_array_equal(actions, earlier[:, :-1])


@pytest.mark.parametrize("layers", [0, 1, 2])
def test_layers_see_a_power_of_two_frames(layers):
    frames, _ = reached(*build(layers=layers))
    ages = np.arange(TIME)[:, None] - np.arange(TIME)[None, :]
    np.testing.assert_array_equal(frames, (ages > 0) & (ages <= 2**layers))


@pytest.mark.parametrize(
    ("layers", "with_actions"), [(0, True), (1, True), (3, True), (3, False)]
)
def test_next_frame_gives_the_maps_of_the_whole_clip(layers, with_actions):
    network, params, codes, actions = build(layers=layers, with_actions=with_actions)
    codes = jnp.concatenate([codes, codes[:, ::-1]])
    led = None
    if with_actions:
        actions = jnp.concatenate([actions, actions[:, ::-1]])
        # No action leads to the first frame; its value is not read.
        led = jnp.pad(actions, ((0, 0), (1, 0))).T
    else:
        actions = None
    whole = jax.jit(network.apply)(params, codes, actions)

    @jax.jit
    def walk(params):
        def step(queues, inputs):
            return network.apply(params, queues, *inputs, method="next_frame")

        before = jnp.roll(jnp.moveaxis(codes, 1, 0), 1, axis=0)
        start = network.empty_queues(2, *GRID[:2])
        return jax.lax.scan(step, start, (jnp.arange(TIME), led, before))[1]

    maps = walk(params)
    assert np.ptp(maps) > 0.1
    for time in range(TIME):
        np.testing.assert_allclose(maps[time], whole[:, time], rtol=1e-5, atol=1e-5)


def test_shapes_and_dtypes():
    network, params, codes, actions = build(dtype="bfloat16")
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))
    maps = jax.jit(network.apply)(params, codes, actions)
    assert (maps.shape, maps.dtype) == ((1, TIME, *GRID[:2], 6), jnp.bfloat16)


def test_dropout_needs_a_key():
    network, params, codes, actions = build(dropout=0.5, layers=1)
    apply = jax.jit(lambda rngs: network.apply(params, codes, actions, rngs=rngs))
    noisy, other = (apply({"dropout": jax.random.key(n)}) for n in range(2))
    quiet = apply(None)
    # Half of each gate is dropped and the rest doubled.
    assert np.abs(noisy - quiet).max() > 0.1
    assert np.abs(noisy - other).max() > 0.1
    without = jax.jit(network.clone(dropout=0.0).apply)(params, codes, actions)
    np.testing.assert_allclose(quiet, without, rtol=1e-5, atol=1e-6)
