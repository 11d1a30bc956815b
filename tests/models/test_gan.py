"""The GAN: the gradient of each player is that of its loss, R1 in closed form.

Numbers in brackets are rows of the list of known defects in docs/conformance.md.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.datasets import load_digits
from tiny_models import changed, evaluate, image_batch, random_params, step
from tree_checks import assert_close

from vqvae_jax import metrics
from vqvae_jax.models import gan
from vqvae_jax.models.gan import GAN, Params
from vqvae_jax.networks.dcgan import Discriminator, Generator
from vqvae_jax.runtime.errors import UserError
from vqvae_jax.training.step import init_state, make_train_step

SHAPE, Z = (4, 6, 2), 3
DIMS = math.prod(SHAPE)
MODEL = GAN(
    image_shape=SHAPE,
    latent_dim=Z,
    generator=Generator(channels=6, num_downsamples=1),
    discriminator=Discriminator(channels=6, num_downsamples=1),
    r1=0.0,
)
PENALIZED = changed(MODEL, {"r1": 3.0})
KEY = jax.random.key(0)
ROUNDING = {"rtol": 1e-4, "atol": 1e-6}


def make_batch(*mask):
    return image_batch(SHAPE, *mask)


def with_bias(params, bias):
    """Return the parameters with all logits of the discriminator shifted."""
    layers = params.discriminator["params"]
    dense = layers["dense"] | {"bias": jnp.full(1, bias, "float32")}
    return params._replace(discriminator={"params": layers | {"dense": dense}})


@jax.jit
def logits_of(params, key, batch):
    """Return the logits of real and of generated images, from the networks."""
    z = jax.random.normal(key, (5, Z))
    images = jnp.float32(batch["image"]) / 127.5 - 1
    fake = MODEL._generator.apply(params.generator, z)
    apply = MODEL.discriminator.apply
    return apply(params.discriminator, images), apply(params.discriminator, fake)


@jax.jit
def gradients_by_player(params, key, batch):
    """Return the gradient of each player's loss, as Goodfellow et al. write it."""

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


@pytest.fixture(scope="module")
def params():
    return random_params(MODEL)


class TestLoss:
    @pytest.mark.parametrize("player", ["generator", "discriminator"])
    def test_gradient_of_each_player_is_that_of_its_loss(self, params, player):
        _, gradient = step(MODEL, params, KEY, make_batch())
        expected = getattr(gradients_by_player(params, KEY, make_batch()), player)
        assert norm(expected) > 0.1
        assert_close(getattr(gradient, player), expected, **ROUNDING)

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

    def test_a_saturated_discriminator_still_has_gradients(self, params):
        """Logits of -2000 give a finite loss and a full gradient of the generator."""
        saturated = with_bias(params, -2e3)
        (loss, _), gradient = step(MODEL, saturated, KEY, make_batch())
        assert loss == pytest.approx(4000, rel=0.01)
        assert norm(gradient.generator) > 0.1

    def test_padding_is_not_counted(self, params):
        """[10] The mean over images 0, 2 and 4, from the networks' logits."""
        batch = make_batch((True, False, True, False, True))
        real, fake = logits_of(params, KEY, batch)
        expected = np.logaddexp(0, -np.float64(real)) + np.logaddexp(0, fake)
        (_, (means, _)), _ = step(MODEL, params, KEY, batch)
        ours = metrics.compute(means)["discriminator"]
        assert ours == pytest.approx(expected[np.array([0, 2, 4])].mean(), rel=1e-5)


class TestR1:
    def test_of_a_linear_discriminator_is_the_squared_norm_of_its_weights(self):
        w = np.random.default_rng(0).normal(size=SHAPE)
        images = np.float32(np.random.default_rng(1).normal(size=(6, *SHAPE)))
        ours = gan.squared_slope(
            lambda x: jnp.tensordot(x, jnp.float32(w), 3) + 4.0, jnp.asarray(images)
        )
        np.testing.assert_allclose(ours, np.full(6, np.sum(w**2)), rtol=1e-5)

    def test_is_computed_for_each_image(self):
        """|grad |x|² / 2|² = |x|² differs between images."""
        images = np.float32(np.random.default_rng(1).normal(size=(6, *SHAPE)))
        ours = gan.squared_slope(
            lambda x: jnp.square(x).sum((1, 2, 3)) / 2, jnp.asarray(images)
        )
        np.testing.assert_allclose(ours, np.sum(images**2, (1, 2, 3)), rtol=1e-5)

    def test_adds_half_its_weight_times_the_squared_gradient_at_real_images(
        self, params
    ):
        """The gradient by finite differences of the logits, value by value."""
        batch = make_batch((False, False, True, False, False))
        x = np.float32(batch["image"][2:3]) / 127.5 - 1
        moved = x + 1e-2 * np.eye(DIMS, dtype="float32").reshape(DIMS, *SHAPE)
        back = 2 * x - moved
        logits = jax.jit(MODEL.discriminator.apply)(
            params.discriminator, np.concatenate([moved, back])
        )
        slope = np.subtract(*np.split(np.float64(logits), 2)) / 2e-2
        (with_r1, _), _ = step(PENALIZED, params, KEY, batch)
        (without, _), _ = step(MODEL, params, KEY, batch)
        expected = 3.0 / 2 * np.sum(slope**2)
        assert expected > 0.05
        assert with_r1 - without == pytest.approx(expected, rel=0.03)

    def test_has_no_gradient_for_the_generator(self, params):
        (_, (means, _)), gradient = step(PENALIZED, params, KEY, make_batch())
        (_, (others, _)), without = step(MODEL, params, KEY, make_batch())
        assert_close(gradient.generator, without.generator, **ROUNDING)
        assert_close(means, others, **ROUNDING)
        difference = jax.tree.map(
            jnp.subtract, gradient.discriminator, without.discriminator
        )
        assert norm(difference) > 0.1


def test_evaluate_has_no_objective(params):
    values = metrics.compute(evaluate(PENALIZED, params, make_batch()))
    assert values["loss"] == 0.0
    names = {"generator", "discriminator", "real_accuracy", "fake_accuracy"}
    assert set(values) == names | {"loss"}


def test_samples_are_images_of_the_generator(params):
    sample = jax.jit(MODEL.sample, static_argnames="num_samples")
    ours = sample(params, KEY, num_samples=6)
    assert (ours.shape, ours.dtype) == ((6, *SHAPE), jnp.uint8)
    z = jax.random.normal(KEY, (6, Z))
    images = np.float64(jax.jit(MODEL._generator.apply)(params.generator, z))
    assert np.abs(np.float64(ours) - (images + 1) * 127.5).max() < 0.501
    assert np.ptp(np.int32(ours), axis=0).max() > 10


def test_other_images_raise(params):
    mask = jnp.ones(2, bool)
    for images, message in (
        (jnp.zeros((2, 6, 4, 2), jnp.uint8), r"\[B, 4, 6, 2\], got \(2, 6, 4, 2\)"),
        (jnp.zeros((2, *SHAPE)), "must be uint8 .*, got float32"),
    ):
        with pytest.raises(UserError, match=message):
            jax.eval_shape(MODEL.loss, params, KEY, {"image": images, "mask": mask})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("latent_dim", 0),
        ("generator.num_downsamples", 0),
        ("discriminator.num_downsamples", 0),
        ("generator.num_downsamples", 3),
        ("discriminator.num_downsamples", 3),
        ("generator.channels", 0),
        ("discriminator.channels", 0),
        ("r1", -0.5),
        ("generator.dtype", "float16"),
        ("discriminator.dtype", "float16"),
    ],
)
def test_invalid_options_raise(name, value):
    with pytest.raises(UserError, match=rf"^model\.{name}\b.*{value}"):
        changed(MODEL, {name: value})


@pytest.mark.parametrize("network", ["generator", "discriminator"])
def test_channels_must_be_divisible_by_every_halving(network):
    model = GAN(image_shape=(8, 8, 1))
    message = rf"^model\.{network}\.channels is halved 2 times, .* of 4, got 6"
    with pytest.raises(UserError, match=message):
        changed(model, {f"{network}.channels": 6})


def test_learns_the_digits():
    """The mean and the spread of samples come near those of the data."""
    images = np.round(load_digits().images * (255 / 16)).astype(np.uint8)[..., None]
    model = GAN(
        image_shape=(8, 8, 1),
        latent_dim=16,
        generator=Generator(channels=32, num_downsamples=1),
        discriminator=Discriminator(channels=32, num_downsamples=1),
    )
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
