"""VIMCO: its estimator against enumeration, its bound against the exact likelihood.

Numbers in brackets are rows of the list of known defects in docs/conformance.md.
"""

import dataclasses
import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from vqvae_jax import metrics
from vqvae_jax.models.vimco import VIMCO
from vqvae_jax.runtime.errors import UserError
from vqvae_jax.training.state import Model

# Two latents of three categories: nine grids, all of which can be enumerated.
SHAPE, G, K, D, S = (2, 2, 3), 2, 3, 2, 2
DIMS = math.prod(SHAPE)
MODEL = VIMCO(
    image_shape=SHAPE,
    num_codes=K,
    num_codebooks=G,
    dim=D,
    num_samples=S,
    stages=1,
    units=6,
    residual_blocks=1,
    residual_units=4,
    likelihood="gaussian",
)
EVERY_CODE = np.array(list(itertools.product(range(K), repeat=G)), np.int32)
KEY = jax.random.key(0)


def random_params(model):
    """Random arrays of the right shapes: `init` would take seconds to compile."""
    rng = np.random.default_rng(0)
    batch = {"image": jnp.zeros((1, *SHAPE), jnp.uint8), "mask": jnp.ones(1, bool)}
    shapes = jax.eval_shape(model.init, KEY, batch)

    def draw(leaf):
        fan_in = max(2, np.prod(leaf.shape[:-1]))
        return jnp.asarray(rng.normal(size=leaf.shape) / fan_in**0.5, "float32")

    return jax.tree.map(draw, shapes)


def make_batch(mask=(True,) * 5):
    images = np.random.default_rng(1).integers(60, 200, size=(5, *SHAPE))
    return {"image": jnp.asarray(images, "uint8"), "mask": jnp.array(mask)}


@pytest.fixture(scope="module")
def params():
    return random_params(MODEL)


@functools.partial(jax.jit, static_argnums=0)
def step(model, params, key, batch):
    """Everything that training computes; the model is a static argument."""
    return jax.value_and_grad(model.loss, has_aux=True)(params, key, batch)


@functools.partial(jax.jit, static_argnums=0)
def evaluate(model, params, batch):
    return model.evaluate(params, batch)


def enumerated(params, image):
    """log q(z|x) and log p(x|z) of the nine grids, straight from the networks."""
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


class TestLoss:
    def test_gradient_is_that_of_the_enumerated_bound(self, params):
        """Of every parameter, by 64 means over 100 draws each."""
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
    @pytest.mark.parametrize("at_once", [2])
    def test_samples_at_once_change_nothing(self, params, at_once):
        six = dataclasses.replace(MODEL, num_samples=6)
        chunked = dataclasses.replace(six, samples_at_once=at_once)
        expected, ours = (step(m, params, KEY, make_batch()) for m in (six, chunked))
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
            ours,
            expected,
        )

    def test_padding_changes_nothing(self, params):
        """[10] Not the loss, the gradients or the metrics."""
        batch = make_batch((True, False, True, False, True))
        images = batch["image"].at[np.array([1, 3])].set(7)
        others = batch | {"image": images}
        (first, gradient), (second, other) = (
            step(MODEL, params, KEY, b) for b in (batch, others)
        )
        jax.tree.map(np.testing.assert_array_equal, first, second)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
            gradient,
            other,
        )
        values, other = (evaluate(MODEL, params, b) for b in (batch, others))
        jax.tree.map(np.testing.assert_array_equal, values, other)
        assert values["bits_per_dim"].weight == 3
        assert values["usage"].counts.sum() == 3 * G


class TestEvaluate:
    def test_bound_goes_to_the_exact_likelihood(self, params):
        """[13] As the samples become many."""
        batch = make_batch()
        many = dataclasses.replace(MODEL, num_samples=2000, samples_at_once=500)
        values = metrics.compute(evaluate(many, params, batch))
        log_q, log_p = map(
            np.float64,
            jax.jit(jax.vmap(enumerated, (None, 0)))(params, batch["image"]),
        )
        exact = special.logsumexp(log_p, axis=1) - G * math.log(K)
        bits = -exact.mean() / DIMS / math.log(2)
        assert values["bits_per_dim"] == pytest.approx(bits, abs=0.01)
        assert values["loss"] == pytest.approx(bits * math.log(2), abs=0.01)
        reconstruction = -(np.exp(log_q) * log_p).sum(axis=1).mean() / DIMS
        assert values["reconstruction"] == pytest.approx(reconstruction, rel=0.02)

    def test_bits_of_each_image(self, params):
        """-L, and distortion and rate of q, whose sum is never below it."""
        batch = make_batch()
        many = dataclasses.replace(MODEL, num_samples=2000, samples_at_once=500)
        values = evaluate(many, params, batch)
        each = metrics.each(values)
        mean = metrics.compute(values)["bits_per_dim"]
        assert each["bits"].mean() / DIMS == pytest.approx(mean, rel=1e-5)
        log_q, log_p = map(
            np.float64,
            jax.jit(jax.vmap(enumerated, (None, 0)))(params, batch["image"]),
        )
        q = np.exp(log_q)
        rate = (q * (log_q + G * math.log(K))).sum(axis=1) / math.log(2)
        np.testing.assert_allclose(each["rate_bits"], rate, rtol=1e-4, atol=1e-4)
        distortion = -(q * log_p).sum(axis=1) / math.log(2)
        np.testing.assert_allclose(each["distortion_bits"], distortion, rtol=0.03)
        assert (each["distortion_bits"] + each["rate_bits"] >= each["bits"]).all()

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

    def test_does_not_depend_on_how_images_are_batched(self, params):
        batch = make_batch()
        whole = metrics.compute(evaluate(MODEL, params, batch))
        parts = [
            evaluate(MODEL, params, jax.tree.map(lambda x, s=s: x[s], batch))
            for s in (slice(3, 5), slice(0, 3))
        ]
        assert metrics.compute(metrics.total(parts)) == pytest.approx(whole, rel=1e-5)

    def test_a_density_gives_no_bits(self):
        model = dataclasses.replace(MODEL, likelihood="mse")
        values = evaluate(model, random_params(model), make_batch())
        assert set(values) == {"reconstruction", "usage", "psnr_db", "loss"}


class TestCoding:
    def test_encode_is_the_likeliest_grid(self, params):
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

    def test_samples_decode_uniform_codes(self, params):
        sample = jax.jit(MODEL.sample, static_argnames="num_samples")
        ours = sample(params, KEY, num_samples=300)
        assert (ours.shape, ours.dtype) == ((300, *SHAPE), jnp.uint8)
        grids = jnp.asarray(EVERY_CODE).reshape(9, *MODEL.grid)
        every = np.int32(jax.jit(MODEL.decode)(params, grids))
        distance = np.abs(np.int32(ours)[:, None] - every[None]).max(axis=(2, 3, 4))
        assert distance.min(axis=1).max() <= 1
        counts = np.bincount(distance.argmin(axis=1), minlength=9)
        assert np.abs(counts - 300 / 9).max() < 5 * math.sqrt(300 / 9)

    def test_other_shapes_are_refused(self, params):
        images = jnp.zeros((2, 4, 2, 3), jnp.uint8)
        message = r"\[B, 2, 2, 3\], got \(2, 4, 2, 3\)"
        for call in (MODEL.encode, MODEL.reconstruct):
            with pytest.raises(UserError, match=message):
                call(params, images)
        with pytest.raises(UserError, match=r"\[B, 1, 1, 2\], got \(1, 1, 2, 1\)"):
            MODEL.decode(params, jnp.zeros((1, 1, 2, 1), jnp.int32))


def test_is_a_model_and_a_static_value(params):
    assert isinstance(MODEL, Model)
    assert hash(dataclasses.replace(MODEL)) == hash(MODEL)
    assert all(jax.tree.leaves(MODEL.trainable(params)))
    assert (MODEL.num_latents, MODEL.grid) == (2, (1, 1, 2))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((n, 0) for n in ("num_codes", "num_codebooks", "dim", "samples_at_once")),
        ("num_samples", 1),
        ("num_samples", 3),
    ],
)
def test_impossible_values_are_told(name, value):
    pairs = dataclasses.replace(MODEL, samples_at_once=2)
    with pytest.raises(UserError, match=rf"^{name}\b.*{value}"):
        dataclasses.replace(pairs, **{name: value})
