"""The stepwise sampler against the logits of the whole grid."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import random_arrays

from vqvae_jax import sampling
from vqvae_jax.networks.pixelcnn import Condition, PixelCNN
from vqvae_jax.runtime.errors import UserError

K, BATCH = 5, 3


def build(grid, **options):
    """Return a network, random parameters, a condition with a label and map, codes."""
    rng = np.random.default_rng(0)
    sizes = {"layers": 2, "channels": 16, "num_classes": 4, "map_features": 2} | options
    network = PixelCNN(K, grid[-1], **sizes)
    codes = rng.integers(K, size=(BATCH, *grid)).astype("int32")
    features = jnp.asarray(rng.normal(size=(BATCH, *grid[:2], 2)), "float32")
    labels = jnp.asarray(rng.integers(4, size=BATCH))
    condition = Condition(labels=labels, features=features)
    shapes = jax.eval_shape(network.init, jax.random.key(0), codes, condition)
    return network, random_arrays(shapes, seed=rng), condition, codes


def walk(network, params, condition, codes):
    """Respond with the given codes; return the codes and logits of `stepwise`."""
    responses = iter(np.moveaxis(codes, 0, -1).reshape(-1, BATCH))
    seen = []

    def respond(logits):
        seen.append(logits)
        return next(responses)

    found = sampling.stepwise(
        network, params, respond, shape=codes.shape, condition=condition
    )
    return found, np.stack(seen, axis=1).reshape(*codes.shape, K)


@pytest.mark.parametrize(
    ("grid", "options"),
    [((4, 3, 1), {}), ((2, 3, 3), {"kernel_size": 3, "cell_layers": 2})],
    ids=str,
)
def test_logits_equal_those_of_the_whole_grid(grid, options):
    network, params, condition, codes = build(grid, **options)
    whole = jax.jit(network.apply)(params, codes, condition)
    found, logits = walk(network, params, condition, codes)
    np.testing.assert_array_equal(found, codes)
    assert np.std(whole) > 0.1
    np.testing.assert_allclose(logits, whole, atol=1e-5)


def test_logits_are_bit_identical_given_the_same_earlier_codes():
    """Later codes do not change them."""
    network, params, condition, codes = build((3, 2, 2))
    _, logits = walk(network, params, condition, codes)
    other = codes.copy()
    other[:, 1, 1, 1:] = (codes[:, 1, 1, 1:] + 1) % K
    other[:, 2] = (codes[:, 2] + 2) % K
    _, again = walk(network, params, condition, other)
    np.testing.assert_array_equal(again[:, 0], logits[:, 0])
    np.testing.assert_array_equal(again[:, 1, :, 0], logits[:, 1, :, 0])
    assert (again[:, 2] != logits[:, 2]).any()


def test_a_missing_condition_is_rejected():
    network, params, condition, codes = build((3, 2, 1))
    with pytest.raises(UserError, match=r"labels of shape \[3\] are needed"):
        walk(network, params, condition._replace(labels=None), codes)
