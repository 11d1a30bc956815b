"""Jitter and rolling of code sequences, against expected positions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqvae_jax.tasks.speech.jitter import jitter, roll_by_half


def numbered(batch, length):
    """Sequences in which each vector is its position."""
    positions = jnp.arange(length, dtype=jnp.float32)[None, :, None]
    return jnp.broadcast_to(positions, (batch, length, 1))


def test_jitter_copies_neighbours_at_the_given_rate():
    mask = jnp.ones((500, 10), bool)
    moved = jax.jit(jitter, static_argnames="rate")(
        jax.random.key(0), numbered(500, 10), mask, rate=0.3
    )
    step = np.asarray(moved)[..., 0] - np.arange(10)
    assert set(np.unique(step)) == {-1, 0, 1}
    inside = step[:, 1:-1]
    for side in (-1, 1):
        assert np.mean(inside == side) == pytest.approx(0.15, abs=0.02)
    # The ends have one neighbour.
    assert np.mean(step[:, 0] == 1) == pytest.approx(0.15, abs=0.05)
    assert np.mean(step[:, -1] == -1) == pytest.approx(0.15, abs=0.05)


def test_jitter_never_copies_padding():
    """[10] The last code before the padding is kept or replaced by the previous one."""
    mask = jnp.arange(6)[None] < 4
    mask = jnp.broadcast_to(mask, (400, 6))
    moved = jax.jit(jitter, static_argnames="rate")(
        jax.random.key(1), numbered(400, 6), mask, rate=0.9
    )
    assert set(np.unique(np.asarray(moved)[:, 3, 0])) == {2, 3}


def test_zero_rate_returns_the_input():
    z_q = numbered(2, 5)
    assert jitter(jax.random.key(0), z_q, jnp.ones((2, 5), bool), rate=0.0) is z_q


def test_roll_by_half_uses_the_length_of_each_sequence():
    mask = jnp.asarray([[True] * 5 + [False], [True] * 6, [True] + [False] * 5])
    found = jax.jit(roll_by_half)(numbered(3, 6), mask)[..., 0]
    np.testing.assert_array_equal(
        found, [[2, 3, 4, 0, 1, 5], [3, 4, 5, 0, 1, 2], [0, 1, 2, 3, 4, 5]]
    )
