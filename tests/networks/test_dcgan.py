"""Generator and discriminator: sizes, ranges, independence of examples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqvae_jax.networks.dcgan import Discriminator, Generator

KEY = jax.random.key(0)


def num_parameters(module, *shape):
    shapes = jax.eval_shape(module.init, KEY, jnp.zeros(shape))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def layer(fan_in, out):
    return fan_in * out + out


def test_parameter_counts_of_dcgan_on_32x32():
    """512, 256 and 128 channels, counted by hand."""
    generator = (
        layer(100, 4 * 4 * 512)
        + 2 * (512 + 256 + 128)
        + layer(16 * 512, 256)
        + layer(16 * 256, 128)
        + layer(16 * 128, 3)
    )
    discriminator = (
        layer(16 * 3, 128)
        + layer(16 * 128, 256)
        + layer(16 * 256, 512)
        + layer(4 * 4 * 512, 1)
    )
    assert num_parameters(Generator((32, 32, 3)), 1, 100) == generator
    assert num_parameters(Discriminator(), 1, 32, 32, 3) == discriminator


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("shape", "halvings"), [((8, 8, 1), 1), ((8, 16, 3), 2), ((16, 8, 2), 3)]
)
def test_shapes_and_dtypes(shape, halvings, dtype):
    options = {"channels": 8, "num_downsamples": halvings, "dtype": dtype}

    def both(key, z):
        images, params = Generator(shape, **options).init_with_output(key, z)
        logits, more = Discriminator(**options).init_with_output(key, images)
        return images, logits, (params, more)

    images, logits, params = jax.eval_shape(both, KEY, jnp.zeros((5, 3)))
    assert (images.shape, images.dtype) == ((5, *shape), jnp.float32)
    assert (logits.shape, logits.dtype) == ((5,), jnp.float32)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    assert set(params[0]) == set(params[1]) == {"params"}


@pytest.fixture(scope="module")
def outputs():
    """Images and logits of an untrained pair, and their derivatives by examples."""
    generator = Generator((8, 8, 1), channels=8, num_downsamples=2)
    discriminator = Discriminator(channels=8, num_downsamples=2)

    @jax.jit
    def run(key):
        z = jax.random.normal(key, (4, 16))
        images, params = generator.init_with_output(key, z)
        logits, more = discriminator.init_with_output(key, images)
        by_z = jax.jacrev(lambda z: generator.apply(params, z).sum((1, 2, 3)))(z)
        by_image = jax.jacrev(lambda x: discriminator.apply(more, x))(images)
        return images, logits, by_z, by_image

    return jax.tree.map(np.asarray, run(KEY))


def test_images_are_in_the_range_of_tanh_and_not_saturated(outputs):
    images = outputs[0]
    assert np.abs(images).max() <= 1
    assert 0.3 < images.std() < 0.8


@pytest.mark.parametrize("which", [2, 3], ids=["generator", "discriminator"])
def test_examples_do_not_influence_each_other(outputs, which):
    influence = np.abs(outputs[which]).reshape(4, 4, -1).sum(axis=2)
    others = ~np.eye(4, dtype=bool)
    assert influence.diagonal().min() > 0.01
    np.testing.assert_array_equal(influence[others], 0)
