"""The networks from a grid of codes to latents and back, on grids of odd sides."""

import jax
import jax.numpy as jnp
import numpy as np

from vqvae_jax.tasks.hierarchy.networks import GlobalDecoder, GlobalEncoder

SMALL = {
    "channels": 4,
    "num_downsamples": 2,
    "residual_blocks": 0,
    "residual_channels": 3,
}


def applied(network, x):
    """Return the outputs of an initialised network."""
    initialise_and_apply = jax.jit(lambda key, x: network.init_with_output(key, x)[0])
    return np.asarray(initialise_and_apply(jax.random.key(0), x))


def test_every_code_of_every_cell_reaches_the_latents():
    """Change one code at a time; the two codes of a cell have different tables."""
    network = GlobalEncoder(out_features=6, num_codes=2, codes_per_cell=2, **SMALL)
    one_changed = jnp.eye(3 * 5 * 2, dtype=int).reshape(-1, 3, 5, 2)
    none = jnp.zeros((1, 3, 5, 2), int)
    z_e = applied(network, jnp.concatenate([none, one_changed]))
    assert z_e.shape == (31, 6)
    assert z_e.dtype == jnp.float32
    distances = np.abs(z_e[:, None] - z_e[None]).max(axis=-1) + np.eye(31)
    assert distances.min() > 1e-4


def test_every_latent_reaches_every_cell_of_the_map():
    network = GlobalDecoder((5, 7), out_channels=3, **SMALL)
    z = 3 * jnp.concatenate([jnp.zeros((1, 6)), jnp.eye(6), -jnp.eye(6)])
    features = applied(network, z)
    assert features.shape == (13, 5, 7, 3)
    # A ReLU may be off for one of +z and -z.
    moved = np.abs(features[1:] - features[:1]).max(axis=-1).reshape(2, 6, 5, 7)
    assert moved.max(axis=0).min() > 1e-3
    # The map starts far from zero: the PixelCNN would ignore a map near zero.
    assert np.std(features[1:]) > 0.2
