"""From a grid of codes to a few latents and back, on grids of odd sides."""

import jax
import jax.numpy as jnp
import numpy as np

from vqvae_jax.networks.global_code import GlobalDecoder, GlobalEncoder

SMALL = {"units": 4, "stages": 2, "residual_blocks": 1, "residual_units": 3}
GRID = (5, 7)


def test_every_cell_reaches_every_latent():
    """Through the tables: a row of the table for each cell, and their gradients."""
    network = GlobalEncoder(out_features=6, num_codes=35, **SMALL)
    codes = jnp.arange(35).reshape(1, *GRID, 1)

    @jax.jit
    def reached(key):
        params = network.init(key, codes)

        def latents(tables):
            embedding = {"tables": tables}
            changed = {**params["params"], "embedding": embedding}
            return network.apply({"params": changed}, codes)[0]

        tables = params["params"]["embedding"]["tables"]
        return latents(tables), jax.jacobian(latents)(tables)

    z_e, gradient = reached(jax.random.key(0))
    assert z_e.shape == (6,)
    assert z_e.dtype == jnp.float32
    assert (np.abs(gradient).sum(axis=-1) > 0).all()


def test_codes_of_a_cell_have_tables_of_their_own():
    network = GlobalEncoder(out_features=2, num_codes=5, codes_per_cell=2, **SMALL)
    codes = jnp.stack([jnp.zeros(GRID, int), jnp.ones(GRID, int)], axis=-1)[None]
    swapped = codes[..., ::-1]
    params = jax.jit(network.init)(jax.random.key(0), codes)
    a, b = jax.jit(network.apply)(params, jnp.concatenate([codes, swapped]))
    assert np.abs(a - b).max() > 1e-3


def test_every_latent_reaches_every_cell_of_the_map():
    network = GlobalDecoder(GRID, out_channels=3, **SMALL)

    @jax.jit
    def reached(key):
        z = jax.random.normal(key, (4, 6))
        params = network.init(key, z)

        def features(z):
            return network.apply(params, z[None])[0]

        return network.apply(params, z), jax.vmap(jax.jacobian(features))(z)

    features, gradient = reached(jax.random.key(0))
    assert features.shape == (4, *GRID, 3)
    # One of four vectors is enough: a unit may be off for the others.
    assert (np.abs(gradient).sum(axis=(0, 3)) > 0).all()
    # It starts with something to say: near zero it would not be listened to.
    assert np.std(features) > 0.2
