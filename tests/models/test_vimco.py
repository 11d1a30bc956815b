"""VIMCO: its objective on a toy, and the model, against enumeration.

Numbers in brackets are rows of the list of known defects in docs/conformance.md.
"""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from frequency_checks import assert_follow
from scipy import special
from tiny_models import (
    AUTOENCODER,
    changed,
    evaluate,
    image_batch,
    random_params,
    step,
)
from tree_checks import assert_close

from vqvae_jax import metrics
from vqvae_jax.models import vimco
from vqvae_jax.models.vimco import VIMCO
from vqvae_jax.networks.autoencoder import Decoder, Encoder
from vqvae_jax.runtime.errors import UserError

# Two latents of three categories: nine grids, which can be enumerated.
SHAPE, G, K, D, S = (2, 2, 3), 2, 3, 2, 2
DIMS = math.prod(SHAPE)
SIZES = AUTOENCODER | {"channels": 6}
MODEL = VIMCO(
    image_shape=SHAPE,
    num_codes=K,
    num_codebooks=G,
    dim=D,
    num_samples=S,
    encoder=Encoder(**SIZES),
    decoder=Decoder(**SIZES),
    likelihood="gaussian",
)
EVERY_CODE = np.array(list(itertools.product(range(K), repeat=G)), np.int32)
KEY = jax.random.key(0)
# The toy: q by logits, log p(x, z) a table of the nine grids.
LOGITS = np.array([[0.3, -0.5, 0.9], [1.2, 0.1, -0.4]])
JOINT = np.array([-31.0, -30.2, -33.0, -29.5, -30.8, -32.0, -34.0, -30.0, -29.0])
TOY_SAMPLES = 3


def make_batch(*mask):
    return image_batch(SHAPE, *mask, values=(60, 200))


@pytest.fixture(scope="module")
def params():
    return random_params(MODEL)


def enumerated(params, image):
    """Return log q(z|x) and log p(x|z) of the nine grids, from the networks."""
    inputs = jnp.float32(image)[None] / 127.5 - 1
    logits = MODEL._encoder.apply(params.encoder, inputs).reshape(G, K)
    log_q = jax.nn.log_softmax(logits)
    log_q = sum(log_q[g, EVERY_CODE[:, g]] for g in range(G))
    rows = [params.tables[g, EVERY_CODE[:, g]] for g in range(G)]
    z = jnp.concatenate(rows, axis=-1).reshape(len(EVERY_CODE), 1, 1, G * D)
    outputs = MODEL._decoder.apply(params.decoder, z)
    images = jnp.broadcast_to(image, (len(EVERY_CODE), *SHAPE))
    log_p = MODEL._likelihood.log_prob(outputs, images).sum(axis=(1, 2, 3))
    return log_q, log_p


def exact_gradient():
    """Return that of E[L] over the 9^3 triples, by differences in float64."""
    triples = np.array(list(itertools.product(range(9), repeat=TOY_SAMPLES)))

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
    """Return those of `surrogate(log_weights, log_q)` for many draws, `[count, 15]`."""

    def one(key, flat):
        logits, joint = flat[:6].reshape(2, 3), flat[6:]
        log_q_of_each = jax.nn.log_softmax(logits)
        z = jax.random.categorical(
            key, jax.lax.stop_gradient(log_q_of_each), shape=(TOY_SAMPLES, 2)
        )
        log_q = log_q_of_each[0, z[:, 0]] + log_q_of_each[1, z[:, 1]]
        log_w = joint[3 * z[:, 0] + z[:, 1]] - log_q
        return surrogate(log_w[:, None], log_q[:, None])

    flat = jnp.asarray(np.concatenate([LOGITS.ravel(), JOINT]), "float32")
    keys = jax.random.split(KEY, count)
    differentiate = jax.jit(jax.vmap(jax.grad(one, argnums=1), (0, None)))
    return np.float64(differentiate(keys, flat))


def z_scores(gradients):
    error = gradients.std(axis=0) / math.sqrt(len(gradients))
    return np.abs(gradients.mean(axis=0) - exact_gradient()) / error


def estimator(log_w, log_q, *, factor=1.0, uses_own_sample=False):
    """Compute the estimator of one example sample by sample, with optional defects."""
    log_w, log_q = log_w[:, 0], log_q[:, 0]
    count = len(log_w)
    bound = jnp.log(jnp.mean(jnp.exp(log_w + 30))) - 30
    total = bound
    for j in range(count):
        others = [log_w[i] for i in range(count) if i != j or uses_own_sample]
        replaced = [log_w[i] for i in range(count) if i != j]
        replaced.append(sum(others) / len(others))
        baseline = jnp.log(jnp.mean(jnp.exp(jnp.stack(replaced) + 30))) - 30
        total += jax.lax.stop_gradient(bound - factor * baseline) * log_q[j]
    return total


def without_signal(log_w, log_q):
    return jax.nn.logsumexp(log_w[:, 0])


class TestObjective:
    def test_estimates_the_enumerated_gradient(self):
        ours = gradients(lambda log_w, log_q: vimco.objective(log_w, log_q)[0][0])
        assert z_scores(ours).max() < 4.5
        # With this many draws the bias of a baseline that uses its sample is visible.
        biased = gradients(functools.partial(estimator, uses_own_sample=True))
        assert z_scores(biased).max() > 8
        # Without the learning signal, q receives only a part of its gradient.
        assert z_scores(gradients(without_signal)).max() > 8

    def test_baseline_reduces_the_variance(self):
        """Any factor of it is unbiased; that of the paper has little variance."""
        ours = gradients(lambda log_w, log_q: vimco.objective(log_w, log_q)[0][0])
        same = gradients(estimator)
        np.testing.assert_allclose(ours, same, rtol=1e-2, atol=1e-3)
        spread = ours[:, :6].std(axis=0)
        for factor in (0.0, -1.0):
            worse = gradients(functools.partial(estimator, factor=factor))
            assert z_scores(worse).max() < 4.5
            assert (worse[:, :6].std(axis=0) > 10 * spread).all()

    def test_bound_is_the_log_of_the_mean_weight(self):
        rng = np.random.default_rng(0)
        log_w = 5 * rng.normal(size=(7, 4)) + np.array([[0.0, -1e4, 300.0, -5.0]])
        log_w = log_w.astype(np.float32)
        log_q = rng.normal(size=(7, 4)).astype(np.float32)
        _, bound = jax.jit(vimco.objective)(log_w, log_q)
        expected = special.logsumexp(np.float64(log_w), axis=0) - math.log(7)
        np.testing.assert_allclose(bound, expected, rtol=1e-6)

    def test_offsets_do_not_change_the_gradient(self):
        """Weights that differ by a common factor give the same gradient."""
        rng = np.random.default_rng(1)
        log_w = np.float32(rng.integers(-20, 20, size=(50, 3)) / 4)
        log_q = np.float32(rng.normal(size=(50, 3)))
        gradient = jax.jit(
            jax.grad(lambda *args: vimco.objective(*args)[0].sum(), argnums=(0, 1))
        )
        expected, ours = gradient(log_w, log_q), gradient(log_w - 16384, log_q)
        np.testing.assert_allclose(ours[0], expected[0], rtol=1e-4, atol=1e-7)
        np.testing.assert_allclose(ours[1], expected[1], rtol=1e-4, atol=1e-6)

    def test_extreme_weights_give_finite_gradients(self):
        log_w = np.float32([[-1e6, 0.0], [0.0, -1e6], [0.0, 1e6]])
        value, gradient = jax.value_and_grad(
            lambda *args: vimco.objective(*args)[0].sum(), argnums=(0, 1)
        )(log_w, np.zeros_like(log_w))
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()

    def test_fewer_than_two_samples_raise(self):
        with pytest.raises(UserError, match="at least 2 samples, got 1"):
            vimco.objective(jnp.zeros((1, 3)), jnp.zeros((1, 3)))


class TestDraws:
    # Of three latents; a category of probability 0 must never be drawn.
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
            assert_follow(np.bincount(codes[..., latent].ravel(), minlength=4), p)

    def test_images_latents_and_samples_are_independent(self):
        """Pairs are as frequent as the product of their probabilities."""
        codes = self.draws(num_samples=10_000)[:, :, 0, 0]
        first, second = codes[:, 0, 0] == 0, codes[:, 1, 0] == 0
        other = codes[:, 0, 2] == 2
        for a, b, p in ((first, second, 0.25), (first, other, 0.4)):
            assert abs(np.mean(a & b) - p) < 4 * np.sqrt(p * (1 - p) / 10_000)
        assert abs(np.mean(first[1:] & first[:-1]) - 0.25) < 0.02

    def test_draws_of_an_image_depend_on_its_key_alone(self):
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
                table[(b, *cell, codes[(s, b, *cell)])]
                for cell in itertools.product(range(2), repeat=3)
            )
            assert ours[s, b] == pytest.approx(expected, rel=1e-5)


class TestLoss:
    def test_gradient_is_that_of_the_enumerated_bound(self, params):
        """For every parameter, estimated by 64 means over 100 draws each."""
        image = make_batch()["image"][0]

        def expected_loss(params):
            log_q, log_p = enumerated(params, image)
            log_w = log_p - G * math.log(K) - log_q
            pairs = jnp.logaddexp(log_w[:, None], log_w[None]) - math.log(2)
            q = jnp.exp(log_q)
            return -jnp.sum(q[:, None] * q[None] * pairs) / DIMS

        exact, expected = jax.jit(jax.value_and_grad(expected_loss))(params)
        batch = {
            "image": jnp.broadcast_to(image, (100, *SHAPE)),
            "mask": jnp.ones(100, bool),
        }
        means = jax.jit(
            lambda keys: jax.lax.map(
                lambda key: jax.value_and_grad(MODEL.loss, has_aux=True)(
                    params, key, batch
                ),
                keys,
            )
        )
        (losses, _), gradients = means(jax.random.split(KEY, 64))
        error = float(losses.std()) / 8
        assert abs(float(losses.mean()) - float(exact)) < 4 * error

        def z_scores(ours, expected):
            ours = np.float64(ours)
            error = ours.std(axis=0) / 8 + 1e-6
            return np.abs(ours.mean(axis=0) - np.float64(expected)) / error

        scores = jax.tree.map(z_scores, gradients, expected)
        assert max(x.max() for x in jax.tree.leaves(scores)) < 5.5
        for part in expected:
            sizes = [np.abs(x).max() for x in jax.tree.leaves(part)]
            assert max(sizes) > 1e-3

    @pytest.mark.slow
    def test_samples_at_once_change_nothing(self, params):
        six = changed(MODEL, {"num_samples": 6})
        chunked = changed(six, {"samples_at_once": 2})
        expected, ours = (step(m, params, KEY, make_batch()) for m in (six, chunked))
        assert_close(ours, expected, rtol=1e-4)


class TestEvaluate:
    @pytest.fixture(scope="class")
    @classmethod
    def exact(cls, params):
        """log q and log p of the nine grids, and results with 2000 samples."""
        batch = make_batch()
        every = jax.jit(jax.vmap(enumerated, (None, 0)))(params, batch["image"])
        many = changed(MODEL, {"num_samples": 2000, "samples_at_once": 500})
        return *map(np.float64, every), evaluate(many, params, batch)

    def test_bound_approaches_the_exact_likelihood(self, exact):
        """[13] With 2000 samples."""
        log_q, log_p, results = exact
        values = metrics.compute(results)
        likelihood = special.logsumexp(log_p, axis=1) - G * math.log(K)
        bits = -likelihood.mean() / DIMS / math.log(2)
        assert values["bits_per_dim"] == pytest.approx(bits, abs=0.01)
        assert values["loss"] == pytest.approx(bits * math.log(2), abs=0.01)
        reconstruction = -(np.exp(log_q) * log_p).sum(axis=1).mean() / DIMS
        assert values["reconstruction"] == pytest.approx(reconstruction, rel=0.02)

    def test_bits_per_image_equal_enumeration(self, exact):
        """-L, and distortion and rate of q, whose sum is at least -L."""
        log_q, log_p, results = exact
        each = metrics.each(results)
        mean = metrics.compute(results)["bits_per_dim"]
        assert each["bits"].mean() / DIMS == pytest.approx(mean, rel=1e-5)
        q = np.exp(log_q)
        rate = (q * (log_q + G * math.log(K))).sum(axis=1) / math.log(2)
        np.testing.assert_allclose(each["rate_bits"], rate, rtol=1e-4, atol=1e-4)
        distortion = -(q * log_p).sum(axis=1) / math.log(2)
        np.testing.assert_allclose(each["distortion_bits"], distortion, rtol=0.03)
        assert (each["distortion_bits"] + each["rate_bits"] >= each["bits"]).all()

    def test_codes_of_padding_are_not_counted(self, params):
        """[10] Of five images three are valid."""
        batch = make_batch((True, False, True, False, True))
        assert evaluate(MODEL, params, batch)["usage"].counts.sum() == 3 * G

    def test_psnr_is_that_of_the_mode(self, params):
        batch = make_batch()
        values = metrics.compute(evaluate(MODEL, params, batch))
        images = np.float64(batch["image"])
        codes = jax.jit(MODEL.encode)(params, batch["image"])
        decoded = np.float64(jax.jit(MODEL.decode)(params, codes))
        mse = ((images - decoded) ** 2).mean(axis=(1, 2, 3))
        psnr = 10 * np.log10(255**2 / mse).mean()
        # The metric does not round the image.
        assert values["psnr_db"] == pytest.approx(psnr, abs=0.05)

    def test_a_density_has_no_bits(self):
        model = changed(MODEL, {"likelihood": "mse"})
        values = evaluate(model, random_params(model), make_batch())
        assert set(values) == {"reconstruction", "usage", "psnr_db", "loss"}


class TestCoding:
    def test_encode_returns_the_most_likely_grid(self, params):
        images = make_batch()["image"]
        codes = jax.jit(MODEL.encode)(params, images)
        assert (codes.shape, codes.dtype) == ((5, *MODEL.grid), jnp.int32)
        log_q, _ = jax.jit(jax.vmap(enumerated, (None, 0)))(params, images)
        expected = EVERY_CODE[np.argmax(log_q, axis=1)]
        np.testing.assert_array_equal(codes.reshape(5, G), expected)
        decoded = jax.jit(MODEL.decode)(params, codes)
        assert (decoded.shape, decoded.dtype) == (images.shape, jnp.uint8)
        again = jax.jit(MODEL.reconstruct)(params, images)
        assert np.abs(np.int32(again) - np.int32(decoded)).max() <= 1

    def test_samples_are_decoded_uniform_codes(self, params):
        sample = jax.jit(MODEL.sample, static_argnames="num_samples")
        ours = sample(params, KEY, num_samples=300)
        assert (ours.shape, ours.dtype) == ((300, *SHAPE), jnp.uint8)
        grids = jnp.asarray(EVERY_CODE).reshape(9, *MODEL.grid)
        every = np.int32(jax.jit(MODEL.decode)(params, grids))
        distance = np.abs(np.int32(ours)[:, None] - every[None]).max(axis=(2, 3, 4))
        assert distance.min(axis=1).max() <= 1
        counts = np.bincount(distance.argmin(axis=1), minlength=9)
        assert np.abs(counts - 300 / 9).max() < 5 * math.sqrt(300 / 9)


def test_latents_are_a_grid_of_codes():
    assert (MODEL.num_latents, MODEL.grid) == (2, (1, 1, 2))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_codes", 0),
        ("num_codebooks", 0),
        ("dim", 0),
        ("samples_at_once", 0),
        ("num_samples", 1),
        ("num_samples", 3),
    ],
)
def test_invalid_options_raise(name, value):
    pairs = changed(MODEL, {"samples_at_once": 2})
    with pytest.raises(UserError, match=rf"^model\.{name}\b.*{value}"):
        changed(pairs, {name: value})
