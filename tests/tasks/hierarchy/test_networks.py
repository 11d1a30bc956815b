"""From a grid of codes to a few latents and back, on grids of odd sides."""

import jax
import jax.numpy as jnp
import numpy as np

from vqvae_jax.tasks.hierarchy.networks import GlobalDecoder, GlobalEncoder

SMALL = {"units": 4, "stages": 2, "residual_blocks": 0, "residual_units": 3}


def applied(network, x):
    """Outputs of an initialised network."""
    initialise_and_apply = jax.jit(lambda key, x: network.init_with_output(key, x)[0])
    return np.asarray(initialise_and_apply(jax.random.key(0), x))


def test_every_place_of_every_cell_reaches_the_latents():
    """One code changed after the other; a cell's two places have their own tables."""
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
    # A unit may be off for one of +z and -z.
    moved = np.abs(features[1:] - features[:1]).max(axis=-1).reshape(2, 6, 5, 7)
    assert moved.max(axis=0).min() > 1e-3
    # It starts with something to say: near zero it would not be listened to.
    assert np.std(features[1:]) > 0.2
