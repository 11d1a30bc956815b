"""VIMCO's objective on a toy with nine states, against their enumeration."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from vqvae_jax.models import vimco_objective as vimco
from vqvae_jax.runtime.errors import UserError

# Two latents of three categories: q by logits, log p(x, z) a table of the nine z.
EVERY_CODE = np.array(list(itertools.product(range(3), repeat=2)))
LOGITS = np.array([[0.3, -0.5, 0.9], [1.2, 0.1, -0.4]])
JOINT = np.array([-31.0, -30.2, -33.0, -29.5, -30.8, -32.0, -34.0, -30.0, -29.0])
SAMPLES = 3
KEY = jax.random.key(0)


def exact_gradient():
    """Of E[L], over the 9^3 triples, by differences in float64."""
    triples = np.array(list(itertools.product(range(9), repeat=SAMPLES)))

    def expected_bound(flat):
        logits, joint = flat[:6].reshape(2, 3), flat[6:]
        log_q = special.log_softmax(logits, axis=-1)
        log_q = log_q[0, EVERY_CODE[:, 0]] + log_q[1, EVERY_CODE[:, 1]]
        bounds = special.logsumexp((joint - log_q)[triples], axis=1)
        return np.exp(log_q[triples].sum(axis=1)) @ (bounds - math.log(3))

    flat = np.concatenate([LOGITS.ravel(), JOINT])
    steps = 1e-5 * np.eye(15)
    return [(expected_bound(flat + s) - expected_bound(flat - s)) / 2e-5 for s in steps]


def gradients(surrogate, count=40_000):
    """Of `surrogate(log_weights, log_q)` for many draws, `[count, 15]`."""

    def one(key, flat):
        logits, joint = flat[:6].reshape(2, 3), flat[6:]
        log_q_of_each = jax.nn.log_softmax(logits)
        z = jax.random.categorical(
            key, jax.lax.stop_gradient(log_q_of_each), shape=(SAMPLES, 2)
        )
        log_q = log_q_of_each[0, z[:, 0]] + log_q_of_each[1, z[:, 1]]
        log_w = joint[3 * z[:, 0] + z[:, 1]] - log_q
        return surrogate(log_w[:, None], log_q[:, None])

    flat = jnp.asarray(np.concatenate([LOGITS.ravel(), JOINT]), "float32")
    keys = jax.random.split(KEY, count)
    of_each = jax.jit(jax.vmap(jax.grad(one, argnums=1), (0, None)))
    return np.float64(of_each(keys, flat))


def z_scores(gradients):
    error = gradients.std(axis=0) / math.sqrt(len(gradients))
    return np.abs(gradients.mean(axis=0) - exact_gradient()) / error


def by_hand(log_w, log_q, *, factor=1.0, own_term=False):
    """The estimator of one example, sample by sample; defects on demand."""
    log_w, log_q = log_w[:, 0], log_q[:, 0]
    count = len(log_w)
    bound = jnp.log(jnp.mean(jnp.exp(log_w + 30))) - 30
    total = bound
    for j in range(count):
        others = [log_w[i] for i in range(count) if i != j or own_term]
        replaced = [log_w[i] for i in range(count) if i != j]
        replaced.append(sum(others) / len(others))
        baseline = jnp.log(jnp.mean(jnp.exp(jnp.stack(replaced) + 30))) - 30
        total += jax.lax.stop_gradient(bound - factor * baseline) * log_q[j]
    return total


def without_signal(log_w, log_q):
    return jax.nn.logsumexp(log_w[:, 0])


def test_estimates_the_enumerated_gradient():
    ours = gradients(lambda log_w, log_q: vimco.objective(log_w, log_q)[0][0])
    assert z_scores(ours).max() < 4.5
    # Enough draws to see that a baseline which knows its own sample has a bias.
    biased = gradients(functools.partial(by_hand, own_term=True))
    assert z_scores(biased).max() > 8
    # Without the learning signal q has no more than a part of its gradient.
    assert z_scores(gradients(without_signal)).max() > 8


def test_baseline_takes_the_variance():
    """Any factor of it has no bias; that of the paper leaves little noise."""
    ours = gradients(lambda log_w, log_q: vimco.objective(log_w, log_q)[0][0])
    same = gradients(by_hand)
    np.testing.assert_allclose(ours, same, rtol=1e-2, atol=1e-3)
    spread = ours[:, :6].std(axis=0)
    for factor in (0.0, -1.0):
        worse = gradients(functools.partial(by_hand, factor=factor))
        assert z_scores(worse).max() < 4.5
        assert (worse[:, :6].std(axis=0) > 10 * spread).all()


def test_bound_is_the_log_of_the_mean_weight():
    rng = np.random.default_rng(0)
    log_w = 5 * rng.normal(size=(7, 4)) + np.array([[0.0, -1e4, 300.0, -5.0]])
    log_w = log_w.astype(np.float32)
    log_q = rng.normal(size=(7, 4)).astype(np.float32)
    _, bound = jax.jit(vimco.objective)(log_w, log_q)
    expected = special.logsumexp(np.float64(log_w), axis=0) - math.log(7)
    np.testing.assert_allclose(bound, expected, rtol=1e-6)


def test_offsets_do_not_change_the_gradient():
    """Of all weights at once, as far as float32 holds the weights themselves."""
    rng = np.random.default_rng(1)
    log_w = np.float32(rng.integers(-20, 20, size=(50, 3)) / 4)
    log_q = np.float32(rng.normal(size=(50, 3)))
    gradient = jax.jit(
        jax.grad(lambda *args: vimco.objective(*args)[0].sum(), argnums=(0, 1))
    )
    expected, ours = gradient(log_w, log_q), gradient(log_w - 16384, log_q)
    np.testing.assert_allclose(ours[0], expected[0], rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(ours[1], expected[1], rtol=1e-4, atol=1e-6)


def test_hopeless_samples_are_finite():
    log_w = np.float32([[-1e6, 0.0], [0.0, -1e6], [0.0, 1e6]])
    value, gradient = jax.value_and_grad(
        lambda *args: vimco.objective(*args)[0].sum(), argnums=(0, 1)
    )(log_w, np.zeros_like(log_w))
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


def test_needs_two_samples():
    with pytest.raises(UserError, match="at least 2 samples, got 1"):
        vimco.objective(jnp.zeros((1, 3)), jnp.zeros((1, 3)))


class TestDraws:
    # Of six latents; a category that cannot be must never be drawn.
    P = np.array([[0.5, 0.0, 0.2, 0.3], [0.0, 1.0, 0.0, 0.0], [0.05, 0.15, 0.8, 0.0]])

    def draws(self, *, num_samples, seed=0, images=2):
        p = np.broadcast_to(self.P.reshape(1, 1, 3, 4), (images, 1, 1, 3, 4))
        log_q = jnp.log(jnp.asarray(p, jnp.float32))
        keys = jax.random.split(jax.random.key(seed), images)
        draw = jax.jit(vimco.draw_codes, static_argnames="num_samples")
        return np.asarray(draw(keys, log_q, num_samples=num_samples))

    def test_frequencies_are_the_probabilities(self):
        codes = self.draws(num_samples=10_000)
        assert codes.shape == (10_000, 2, 1, 1, 3)
        for latent, p in enumerate(self.P):
            counts = np.bincount(codes[..., latent].ravel(), minlength=4)
            possible = p > 0
            assert counts[~possible].sum() == 0
            if possible.sum() > 1:
                expected = p[possible] * counts.sum()
                assert stats.chisquare(counts[possible], expected).pvalue > 1e-3

    def test_images_latents_and_samples_are_drawn_apart(self):
        """The pair of any two of them is as frequent as the product says."""
        codes = self.draws(num_samples=10_000)[:, :, 0, 0]
        first, second = codes[:, 0, 0] == 0, codes[:, 1, 0] == 0
        other = codes[:, 0, 2] == 2
        for a, b, p in ((first, second, 0.25), (first, other, 0.4)):
            assert abs(np.mean(a & b) - p) < 4 * np.sqrt(p * (1 - p) / 10_000)
        assert abs(np.mean(first[1:] & first[:-1]) - 0.25) < 0.02

    def test_an_image_depends_on_its_own_key_alone(self):
        keys = jax.random.split(jax.random.key(3), 3)
        log_q = jax.nn.log_softmax(jax.random.normal(KEY, (3, 2, 2, 1, 5)))
        draw = jax.jit(vimco.draw_codes, static_argnames="num_samples")
        all_three = draw(keys, log_q, num_samples=4)
        alone = draw(keys[1:2], log_q[1:2], num_samples=4)
        np.testing.assert_array_equal(all_three[:, 1:2], alone)

    def test_log_q_is_the_sum_over_latents(self):
        log_q = jax.nn.log_softmax(jax.random.normal(KEY, (3, 2, 2, 2, 5)))
        codes = np.random.default_rng(0).integers(5, size=(4, 3, 2, 2, 2))
        ours = jax.jit(vimco.log_q_of)(jnp.asarray(codes, jnp.int32), log_q)
        table = np.float64(log_q)
        for s, b in itertools.product(range(4), range(3)):
            expected = sum(
                table[(b, *place, codes[(s, b, *place)])]
                for place in itertools.product(range(2), repeat=3)
            )
            assert ours[s, b] == pytest.approx(expected, rel=1e-5)
