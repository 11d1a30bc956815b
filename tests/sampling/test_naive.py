"""Ancestral sampling against probabilities enumerated from a table."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from frequency_checks import assert_follow
from scipy import special

from vqvae_jax import sampling

H, W, C, K = 2, 2, 1, 3
POSITIONS = H * W * C
DRAWS = 20_000

# Logits for each position and each possible history before it.
TABLE = 1.5 * np.random.default_rng(0).normal(size=(POSITIONS, K**POSITIONS, K))


def logits_fn(codes):
    """Return the logits of each position, a function of the positions before it."""
    flat = codes.reshape(-1, POSITIONS)
    powers = K ** jnp.arange(POSITIONS)
    history = jnp.cumsum(flat * powers[None], axis=1) - flat * powers[None]
    logits = jnp.asarray(TABLE, "float32")[jnp.arange(POSITIONS)[None], history]
    return logits.reshape(*codes.shape, K)


@functools.partial(jax.jit, static_argnames="temperature")
def draw(key, *, temperature=1.0, given=None):
    return sampling.ancestral(
        logits_fn,
        key,
        shape=(DRAWS, H, W, C),
        adjust=functools.partial(sampling.truncated, temperature=temperature),
        given=given,
    )


def enumerate_grids(temperature=1.0):
    """Return all K^4 grids and their probabilities by the chain rule."""
    grids = list(itertools.product(range(K), repeat=POSITIONS))
    probabilities = []
    for grid in grids:
        p, history = 1.0, 0
        for position, code in enumerate(grid):
            p *= special.softmax(TABLE[position, history] / temperature)[code]
            history += code * K**position
        probabilities.append(p)
    assert sum(probabilities) == pytest.approx(1)
    return np.array(grids), np.array(probabilities)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_grid_frequencies_match_the_probabilities(temperature):
    codes = np.asarray(draw(jax.random.key(0), temperature=temperature))
    assert (codes.shape, codes.dtype) == ((DRAWS, H, W, C), np.int32)
    grids, p = enumerate_grids(temperature)
    index = codes.reshape(DRAWS, POSITIONS) @ K ** np.arange(POSITIONS)[::-1]
    assert np.array_equal(
        grids @ K ** np.arange(POSITIONS)[::-1], np.arange(len(grids))
    )
    assert_follow(np.bincount(index, minlength=len(grids)), p)


def test_low_temperature_samples_the_likeliest_codes():
    best, history = [], 0
    for position in range(POSITIONS):
        best.append(int(TABLE[position, history].argmax()))
        history += best[-1] * K**position
    codes = draw(jax.random.key(1), temperature=1e-4).reshape(DRAWS, POSITIONS)
    np.testing.assert_array_equal(codes, np.broadcast_to(best, codes.shape))


def test_samples_depend_only_on_the_key():
    first, again, other = (draw(jax.random.key(n)) for n in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert np.any(np.asarray(first) != np.asarray(other))


def test_given_codes_are_kept_and_condition_later_codes():
    given = np.full((DRAWS, POSITIONS), sampling.FREE)
    given[:, 1] = 2
    codes = draw(jax.random.key(2), given=jnp.asarray(given).reshape(-1, H, W, C))
    codes = np.asarray(codes).reshape(DRAWS, POSITIONS)
    assert (codes[:, 1] == 2).all()
    first = np.bincount(codes[:, 0], minlength=K)
    p = special.softmax(TABLE[0, 0])
    assert_follow(first, p)
    # The next code, for grids whose first one is 0.
    rest = codes[codes[:, 0] == 0, 2]
    p = special.softmax(TABLE[2, 0 + 2 * K])
    assert_follow(np.bincount(rest, minlength=K), p)


def test_copies_of_the_batch_get_the_same_codes():
    """`adjust` selects the second copy; the logits of the first give only zeros."""
    batch = 5

    def both(codes):
        first, second = jnp.split(codes, 2)
        zeros = jnp.full((batch, H, W, C, K), -50.0).at[..., 0].set(50.0)
        return jnp.concatenate([zeros, logits_fn(second)]) + 0.0 * first.sum()

    codes = sampling.ancestral(
        both,
        jax.random.key(0),
        shape=(batch, H, W, C),
        adjust=lambda logits: logits[batch:],
        copies=2,
    )
    expected = sampling.ancestral(logits_fn, jax.random.key(0), shape=(batch, H, W, C))
    np.testing.assert_array_equal(codes, expected)
    assert codes.any()
