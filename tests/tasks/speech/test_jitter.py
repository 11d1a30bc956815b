"""Jitter and rotation of sequences of codes, counted by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqvae_jax.tasks.speech.jitter import jittered, moved_by_half


def numbered(batch, length):
    """Each code is its own place."""
    places = jnp.arange(length, dtype=jnp.float32)[None, :, None]
    return jnp.broadcast_to(places, (batch, length, 1))


def test_jitter_takes_neighbours_as_often_as_asked():
    mask = jnp.ones((500, 10), bool)
    jitter = jax.jit(jittered, static_argnames="rate")
    moved = jitter(jax.random.key(0), numbered(500, 10), mask, rate=0.3)
    step = np.asarray(moved)[..., 0] - np.arange(10)
    assert set(np.unique(step)) == {-1, 0, 1}
    inside = step[:, 1:-1]
    for side in (-1, 1):
        assert np.mean(inside == side) == pytest.approx(0.15, abs=0.02)
    # An end has one neighbour.
    assert np.mean(step[:, 0] == 1) == pytest.approx(0.15, abs=0.05)
    assert np.mean(step[:, -1] == -1) == pytest.approx(0.15, abs=0.05)


def test_jitter_never_brings_padding_in():
    """[10] The last code before the padding stays or takes the one before."""
    mask = jnp.arange(6)[None] < 4
    mask = jnp.broadcast_to(mask, (400, 6))
    moved = jax.jit(jittered, static_argnames="rate")(
        jax.random.key(1), numbered(400, 6), mask, rate=0.9
    )
    assert set(np.unique(np.asarray(moved)[:, 3, 0])) == {2, 3}


def test_no_jitter_is_no_change():
    z_q = numbered(2, 5)
    assert jittered(jax.random.key(0), z_q, jnp.ones((2, 5), bool), rate=0.0) is z_q


def test_rotation_is_by_half_of_each_sequences_own_length():
    mask = jnp.asarray([[True] * 5 + [False], [True] * 6, [True] + [False] * 5])
    found = jax.jit(moved_by_half)(numbered(3, 6), mask)[..., 0]
    np.testing.assert_array_equal(
        found, [[2, 3, 4, 0, 1, 5], [3, 4, 5, 0, 1, 2], [0, 1, 2, 3, 4, 5]]
    )
