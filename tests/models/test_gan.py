"""The GAN: each player's gradient is that of its own loss, R1 in closed form.

Numbers in brackets are rows of the list of known defects in docs/conformance.md.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.datasets import load_digits

from vqvae_jax import metrics
from vqvae_jax.models import gan
from vqvae_jax.models.gan import GAN, Params
from vqvae_jax.runtime.errors import UserError
from vqvae_jax.training.state import Model, init_state, make_train_step

SHAPE, Z = (4, 6, 2), 3
DIMS = math.prod(SHAPE)
MODEL = GAN(image_shape=SHAPE, latent_dim=Z, units=6, stages=1, r1=0.0)
PENALIZED = dataclasses.replace(MODEL, r1=3.0)
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
    images = np.random.default_rng(1).integers(256, size=(5, *SHAPE))
    return {"image": jnp.asarray(images, "uint8"), "mask": jnp.array(mask)}


@functools.partial(jax.jit, static_argnums=0)
def step(model, params, key, batch):
    """Everything that training computes; the model is a static argument."""
    return jax.value_and_grad(model.loss, has_aux=True)(params, key, batch)


@functools.partial(jax.jit, static_argnums=0)
def evaluate(model, params, batch):
    return model.evaluate(params, batch)


def with_bias(params, bias):
    """The same parameters, all of the discriminator's logits moved."""
    layers = params.discriminator["params"]
    dense = layers["dense"] | {"bias": jnp.full(1, bias, "float32")}
    return params._replace(discriminator={"params": layers | {"dense": dense}})


@jax.jit
def logits_of(params, key, batch):
    """Logits of real and of generated images, straight from the networks."""
    z = jax.random.normal(key, (5, Z))
    images = jnp.float32(batch["image"]) / 127.5 - 1
    fake = MODEL._generator.apply(params.generator, z)
    apply = MODEL._discriminator.apply
    return apply(params.discriminator, images), apply(params.discriminator, fake)


@jax.jit
def own_gradients(params, key, batch):
    """Each player's gradient by its own loss alone, as Goodfellow et al. write them."""

    def generator(parameters):
        _, fake = logits_of(params._replace(generator=parameters), key, batch)
        return -jnp.mean(jnp.log(jax.nn.sigmoid(fake)))

    def discriminator(parameters):
        real, fake = logits_of(params._replace(discriminator=parameters), key, batch)
        log_real = jnp.log(jax.nn.sigmoid(real))
        return -jnp.mean(log_real + jnp.log(1 - jax.nn.sigmoid(fake)))

    return Params(
        jax.grad(generator)(params.generator),
        jax.grad(discriminator)(params.discriminator),
    )


def norm(tree):
    return math.sqrt(sum(np.sum(np.square(x)) for x in jax.tree.leaves(tree)))


def assert_close(ours, expected):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        ours,
        expected,
    )


@pytest.fixture(scope="module")
def params():
    return random_params(MODEL)


class TestLoss:
    @pytest.mark.parametrize("player", ["generator", "discriminator"])
    def test_gradient_of_each_player_is_its_own_losss(self, params, player):
        _, gradient = step(MODEL, params, KEY, make_batch())
        expected = getattr(own_gradients(params, KEY, make_batch()), player)
        assert norm(expected) > 0.1
        assert_close(getattr(gradient, player), expected)

    def test_loss_and_metrics_equal_numpy(self, params):
        real, _ = logits_of(with_bias(params, 0.0), KEY, make_batch())
        params = with_bias(params, -np.sort(real)[1:3].mean())
        (loss, (means, carry)), _ = step(MODEL, params, KEY, make_batch())
        real, fake = map(np.float64, logits_of(params, KEY, make_batch()))
        d_real, d_fake = 1 / (1 + np.exp(-real)), 1 / (1 + np.exp(-fake))
        values = metrics.compute(means)
        assert carry is None
        assert values == pytest.approx(
            {
                "generator": -np.log(d_fake).mean(),
                "discriminator": -np.log(d_real * (1 - d_fake)).mean(),
                "real_accuracy": (d_real > 0.5).mean(),
                "fake_accuracy": (d_fake < 0.5).mean(),
            },
            rel=1e-4,
        )
        assert loss == pytest.approx(values["generator"] + values["discriminator"])
        assert values["real_accuracy"] == pytest.approx(0.6)

    def test_a_sure_discriminator_still_teaches(self, params):
        """Logits of -2000 give a finite loss, and the generator its whole gradient."""
        sure = with_bias(params, -2e3)
        (loss, _), gradient = step(MODEL, sure, KEY, make_batch())
        assert loss == pytest.approx(4000, rel=0.01)
        assert norm(gradient.generator) > 0.1

    def test_padding_changes_nothing(self, params):
        """[10] Not the loss, the gradients or the metrics."""
        batch = make_batch((True, False, True, False, True))
        images = batch["image"].at[np.array([1, 3])].set(7)
        others = batch | {"image": images}
        (first, gradient), (second, other) = (
            step(PENALIZED, params, KEY, b) for b in (batch, others)
        )
        jax.tree.map(np.testing.assert_array_equal, first, second)
        assert_close(gradient, other)
        real, fake = logits_of(params, KEY, batch)
        expected = np.logaddexp(0, -np.float64(real)) + np.logaddexp(0, fake)
        ours = metrics.compute(first[1][0])["discriminator"]
        assert ours == pytest.approx(expected[np.array([0, 2, 4])].mean(), rel=1e-5)
        values, other = (evaluate(MODEL, params, b) for b in (batch, others))
        jax.tree.map(np.testing.assert_array_equal, values, other)
        assert values["generator"].weight == values["loss"].weight == 3


class TestR1:
    def test_of_a_linear_discriminator_is_its_weights_norm(self):
        w = np.random.default_rng(0).normal(size=SHAPE)
        images = np.float32(np.random.default_rng(1).normal(size=(6, *SHAPE)))
        ours = gan.squared_slope(
            lambda x: jnp.tensordot(x, jnp.float32(w), 3) + 4.0, jnp.asarray(images)
        )
        np.testing.assert_allclose(ours, np.full(6, np.sum(w**2)), rtol=1e-5)

    def test_of_a_square_is_each_images_own(self):
        """|grad |x|² / 2|² = |x|², another for each image."""
        images = np.float32(np.random.default_rng(1).normal(size=(6, *SHAPE)))
        ours = gan.squared_slope(
            lambda x: jnp.square(x).sum((1, 2, 3)) / 2, jnp.asarray(images)
        )
        np.testing.assert_allclose(ours, np.sum(images**2, (1, 2, 3)), rtol=1e-5)

    def test_adds_half_its_weight_times_the_slope_at_real_images(self, params):
        """The slope by finite differences of the network's logits, value by value."""
        batch = make_batch((False, False, True, False, False))
        x = np.float32(batch["image"][2:3]) / 127.5 - 1
        moved = x + 1e-2 * np.eye(DIMS, dtype="float32").reshape(DIMS, *SHAPE)
        back = 2 * x - moved
        logits = jax.jit(MODEL._discriminator.apply)(
            params.discriminator, np.concatenate([moved, back])
        )
        slope = np.subtract(*np.split(np.float64(logits), 2)) / 2e-2
        (with_r1, _), _ = step(PENALIZED, params, KEY, batch)
        (without, _), _ = step(MODEL, params, KEY, batch)
        expected = 3.0 / 2 * np.sum(slope**2)
        assert expected > 0.05
        assert with_r1 - without == pytest.approx(expected, rel=0.03)

    def test_is_the_discriminators_alone(self, params):
        (_, (means, _)), gradient = step(PENALIZED, params, KEY, make_batch())
        (_, (others, _)), without = step(MODEL, params, KEY, make_batch())
        assert_close(gradient.generator, without.generator)
        assert_close(means, others)
        difference = jax.tree.map(
            jnp.subtract, gradient.discriminator, without.discriminator
        )
        assert norm(difference) > 0.1


class TestEvaluate:
    def test_has_no_objective(self, params):
        values = metrics.compute(evaluate(PENALIZED, params, make_batch()))
        assert values["loss"] == 0.0
        assert set(values) == {
            "generator",
            "discriminator",
            "real_accuracy",
            "fake_accuracy",
            "loss",
        }

    def test_does_not_depend_on_how_images_are_batched(self, params):
        """Each z is its image's own, wherever the image comes."""
        images = make_batch()["image"]
        whole = metrics.compute(evaluate(MODEL, params, make_batch()))
        parts = [
            evaluate(MODEL, params, {"image": images, "mask": jnp.arange(5) < count})
            for images, count in ((images, 2), (images[::-1], 3))
        ]
        assert metrics.compute(metrics.total(parts)) == pytest.approx(whole, rel=1e-5)


def test_samples_are_the_generators_images(params):
    sample = jax.jit(MODEL.sample, static_argnames="num_samples")
    ours = sample(params, KEY, num_samples=6)
    assert (ours.shape, ours.dtype) == ((6, *SHAPE), jnp.uint8)
    z = jax.random.normal(KEY, (6, Z))
    images = np.float64(jax.jit(MODEL._generator.apply)(params.generator, z))
    assert np.abs(np.float64(ours) - (images + 1) * 127.5).max() < 0.501
    assert np.ptp(np.int32(ours), axis=0).max() > 10


def test_bfloat16_leaves_losses_and_gradients_float32(params):
    model = dataclasses.replace(PENALIZED, dtype="bfloat16")
    (loss, _), gradient = step(model, params, KEY, make_batch())
    (exact, _), _ = step(PENALIZED, params, KEY, make_batch())
    assert loss.dtype == jnp.float32
    assert loss == pytest.approx(float(exact), rel=0.05)
    assert {x.dtype for x in jax.tree.leaves(gradient)} == {jnp.dtype("float32")}


def test_other_images_are_refused(params):
    mask = jnp.ones(2, bool)
    for images, message in (
        (jnp.zeros((2, 6, 4, 2), jnp.uint8), r"\[B, 4, 6, 2\], got \(2, 6, 4, 2\)"),
        (jnp.zeros((2, *SHAPE)), "must be uint8 .*, got float32"),
    ):
        with pytest.raises(UserError, match=message):
            jax.eval_shape(MODEL.loss, params, KEY, {"image": images, "mask": mask})


def test_is_a_model_and_a_static_value(params):
    assert isinstance(MODEL, Model)
    assert hash(dataclasses.replace(MODEL)) == hash(MODEL)
    assert all(jax.tree.leaves(MODEL.trainable(params)))
    assert MODEL.update(params, KEY, None) is params


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("latent_dim", 0),
        ("stages", 0),
        ("stages", 3),
        ("units", 0),
        ("r1", -0.5),
        ("dtype", "float16"),
    ],
)
def test_impossible_values_are_told(name, value):
    with pytest.raises(UserError, match=rf"^{name}\b"):
        dataclasses.replace(MODEL, **{name: value})


def test_units_must_be_halved_by_every_stage():
    with pytest.raises(UserError, match=r"^units is halved 2 times, .* of 4, got 6"):
        GAN(image_shape=(8, 8, 1), units=6, stages=3)


def test_learns_the_digits():
    """Samples' mean and spread near the data's, of noise at the start."""
    images = np.round(load_digits().images * (255 / 16)).astype(np.uint8)[..., None]
    model = GAN(image_shape=(8, 8, 1), latent_dim=16, units=32, stages=1)
    optimizer = optax.adam(2e-3, b1=0.5)
    batches = np.random.default_rng(0).choice(images, (400, 64))
    mask = jnp.ones(64, bool)

    @jax.jit
    def train(key, batches):
        state = init_state(model, optimizer, key, {"image": batches[0], "mask": mask})
        train_step = make_train_step(model, optimizer)

        def body(state, images):
            return train_step(state, {"image": images, "mask": mask})

        state, _ = jax.lax.scan(body, state, batches)
        return model.sample(state.params, key, num_samples=500)

    samples = np.float64(train(KEY, jnp.asarray(batches)))
    assert np.abs(samples.mean(axis=0) - images.mean(axis=0)).mean() < 20
    assert samples.std(axis=0).mean() == pytest.approx(
        images.std(axis=0).mean(), rel=0.2
    )
