"""What all likelihoods share: names, the scale, and rejected inputs."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from vqvae_jax import likelihoods
from vqvae_jax.likelihoods import base
from vqvae_jax.runtime.errors import UserError

NAMES = {
    "categorical": (likelihoods.Categorical(), 256, True),
    "gaussian": (likelihoods.DiscretizedGaussian(), 2, True),
    "gaussian_fixed": (likelihoods.DiscretizedGaussian(scale=0.1), 1, True),
    "logistic_mixture": (likelihoods.LogisticMixture(components=10), 30, True),
    "coupled_logistic_mixture": (likelihoods.CoupledLogisticMixture(), 30, True),
    "mse": (likelihoods.MeanSquaredError(), 1, False),
}


@pytest.mark.parametrize("name", NAMES)
def test_by_name(name):
    expected, num_outputs, is_discrete = NAMES[name]
    likelihood = likelihoods.by_name(name)
    assert likelihood == expected
    assert isinstance(likelihood, likelihoods.Likelihood)
    assert likelihood.num_outputs(1) == num_outputs
    assert likelihood.is_discrete == is_discrete
    # Hashable, as a static argument of jit.
    assert hash(likelihood) == hash(expected)


def test_an_unknown_name_is_rejected():
    with pytest.raises(UserError, match=rf"'cosine'.*{', '.join(NAMES)}"):
        likelihoods.by_name("cosine")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.uint16])
def test_images_of_another_dtype_are_rejected(name, dtype):
    likelihood = likelihoods.by_name(name)
    outputs = jnp.zeros((1, 2, 2, likelihood.num_outputs(3)))
    images = jnp.zeros((1, 2, 2, 3), dtype)
    message = rf"must be uint8 .*, got {np.dtype(dtype)}"
    with pytest.raises(UserError, match=message):
        likelihood.log_prob(outputs, images)


@pytest.mark.parametrize("name", NAMES)
def test_outputs_of_another_shape_are_rejected(name):
    """Otherwise one channel would broadcast over three."""
    likelihood = likelihoods.by_name(name)
    expected = likelihood.num_outputs(3)
    images = jnp.zeros((1, 2, 2, 3), jnp.uint8)
    for channels in (likelihood.num_outputs(1), expected + 1):
        outputs = jnp.zeros((1, 2, 2, channels))
        shape = rf"\(1, 2, 2, {expected}\)"
        message = rf"images of shape \(1, 2, 2, 3\) must .* {shape}, got"
        with pytest.raises(UserError, match=message):
            likelihood.log_prob(outputs, images)


@pytest.mark.parametrize(
    ("name", "channels"),
    [("categorical", 300), ("gaussian", 3), ("logistic_mixture", 31)],
)
def test_indivisible_channels_are_rejected(name, channels):
    likelihood = likelihoods.by_name(name)
    outputs = jnp.zeros((1, 2, 2, channels))
    with pytest.raises(
        UserError, match=rf"multiple of .* {likelihood.num_outputs(1)} "
    ):
        likelihood.mean(outputs)


def test_scales_are_inverses():
    values, ends = jnp.array([0.0, 127.5, 255.0]), jnp.array([-1.0, 0.0, 1.0])
    np.testing.assert_allclose(likelihoods.scaled(values), ends, atol=1e-7)
    np.testing.assert_allclose(likelihoods.unscaled(ends), values, atol=1e-4)
    np.testing.assert_array_equal(
        likelihoods.unscaled(jnp.array([-1.1, 7.0])), [0.0, 255.0]
    )
    rounded = base.to_uint8(jnp.array([0.0, 0.6, 254.4, 255.0]))
    np.testing.assert_array_equal(rounded, np.array([0, 1, 254, 255], np.uint8))
    assert rounded.dtype == jnp.uint8


def test_log_p_of_categories_equals_scipy():
    rng = np.random.default_rng(0)
    logits = rng.normal(scale=5, size=(3, 4, 6)).astype("float32")
    values = rng.integers(6, size=(3, 4))
    expected = special.log_softmax(np.float64(logits), axis=-1)
    ours = likelihoods.log_p_of(jnp.asarray(logits), jnp.asarray(values))
    chosen = np.take_along_axis(expected, values[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(ours, chosen, rtol=1e-5, atol=1e-5)
