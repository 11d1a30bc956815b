"""The PixelCNN of pixels, against enumeration of all images.

Numbers in brackets are rows of the list of known defects in docs/conformance.md.
"""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from frequency_checks import assert_follow
from scipy import special
from tiny_models import changed, random_params

from vqvae_jax import metrics
from vqvae_jax.models.pixelcnn import PixelModel
from vqvae_jax.networks.pixelcnn import PixelCNN
from vqvae_jax.runtime.errors import UserError

SHAPE, K = (2, 1, 2), 3
MODEL = PixelModel(
    image_shape=SHAPE,
    num_values=K,
    class_names=("cat", "dog"),
    network=PixelCNN(layers=1, channels=8, kernel_size=3),
)
EVERY_IMAGE = np.array(list(itertools.product(range(K), repeat=4)), np.uint8)
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def params():
    return random_params(MODEL, scale=0.5)


@pytest.fixture(scope="module")
def log_probs(params):
    """log p of every image, for each class: `[2, 81]`."""
    images = jnp.asarray(np.tile(EVERY_IMAGE.reshape(-1, *SHAPE), (2, 1, 1, 1)))
    labels = jnp.repeat(jnp.arange(2), len(EVERY_IMAGE))
    ours = jax.jit(MODEL.log_prob)(params, images, labels=labels)
    return np.float64(ours).reshape(2, -1)


@pytest.fixture
def batch():
    """Seven examples, of which three are padding."""
    rng = np.random.default_rng(1)
    return {
        "image": jnp.asarray(rng.integers(K, size=(7, *SHAPE)), "uint8"),
        "label": jnp.asarray(rng.integers(2, size=7), "int32"),
        "mask": jnp.array([True, False, True, True, False, True, False]),
    }


def test_probabilities_sum_to_one_for_each_class(log_probs):
    np.testing.assert_allclose(np.exp(log_probs).sum(axis=1), 1, rtol=1e-5)
    assert np.abs(log_probs[0] - log_probs[1]).max() > 0.1


def test_bits_per_dim_is_the_sum_of_the_conditionals(params, batch, log_probs):
    """[10, 13] From the network, for the examples whose mask is True."""
    logits = jax.jit(MODEL._prior.pixelcnn.apply)(
        params,
        jnp.asarray(batch["image"], jnp.int32),
        MODEL._prior._condition_of(batch),
    )
    log_p = special.log_softmax(np.float64(logits), axis=-1)
    images = np.int32(batch["image"])[..., None]
    chosen = np.take_along_axis(log_p, images, axis=-1).reshape(7, -1).sum(axis=1)
    index = images.reshape(7, -1) @ K ** np.arange(4)[::-1]
    expected = log_probs[np.asarray(batch["label"]), index]
    np.testing.assert_allclose(chosen, expected, rtol=1e-5)
    nats = -chosen[np.asarray(batch["mask"])].mean() / 4
    loss, (means, _) = jax.jit(MODEL.loss)(params, KEY, batch)
    assert float(loss) == pytest.approx(nats, rel=1e-5)
    assert metrics.compute(means) == pytest.approx({"bits_per_dim": nats / math.log(2)})
    values = metrics.compute(jax.jit(MODEL.evaluate)(params, batch))
    expected = {"loss": nats, "bits_per_dim": nats / math.log(2)}
    assert values == pytest.approx(expected, rel=1e-5)


def test_samples_have_the_probabilities_of_their_class(params, log_probs):
    """[19] A chi-squared test for each label."""
    labels = jnp.arange(20_000) % 2
    images = np.asarray(MODEL.sample(params, KEY, labels=labels))
    assert (images.shape, images.dtype) == ((20_000, *SHAPE), np.uint8)
    index = images.reshape(20_000, -1) @ K ** np.arange(4)[::-1]
    for label in range(2):
        counts = np.bincount(index[label::2], minlength=len(EVERY_IMAGE))
        assert_follow(counts, np.exp(log_probs[label]))


def test_is_a_prior_over_256_values_by_default():
    model = PixelModel(image_shape=(32, 32, 3))
    assert (model._prior.grid, model._prior.num_codes) == ((32, 32, 3), 256)


def test_values_out_of_range_raise(params, batch):
    """Their log-probability would be NaN."""
    image = batch["image"].at[2, 1, 0, 1].set(K)
    message = r"images must be in 0 ... 2, got 0 ... 3"
    with pytest.raises(UserError, match=message):
        MODEL.log_prob(params, image, labels=batch["label"])
    with pytest.raises(UserError, match=message):
        MODEL.loss(params, KEY, batch | {"image": image})


def test_arrays_that_do_not_fit_raise(params, batch):
    images, labels = batch["image"], batch["label"]
    with pytest.raises(UserError, match=r"images must have .* \[B, 2, 1, 2\], got \(7"):
        MODEL.loss(params, KEY, batch | {"image": images.swapaxes(1, 2)})
    with pytest.raises(UserError, match=r"must be uint8.* int32"):
        MODEL.loss(params, KEY, batch | {"image": images.astype("int32")})
    with pytest.raises(UserError, match="labels are needed"):
        MODEL.log_prob(params, images)
    with pytest.raises(UserError, match=r"must be in 0 \.\.\. 2, got"):
        MODEL.log_prob(params, images + np.uint8(2), labels=labels)


@pytest.mark.parametrize("num_values", [0, 257])
def test_invalid_numbers_of_values_raise(num_values):
    with pytest.raises(UserError, match=rf"^num_values must .*{num_values}"):
        PixelModel(image_shape=SHAPE, num_values=num_values)


def test_invalid_options_raise():
    with pytest.raises(UserError, match=r"^model.network.kernel_size must .* got 2"):
        changed(MODEL, {"network.kernel_size": 2})
    without_labels = PixelModel(image_shape=SHAPE)
    with pytest.raises(UserError, match=r"^model.label_dropout=0.1 does nothing"):
        changed(without_labels, {"label_dropout": 0.1})
