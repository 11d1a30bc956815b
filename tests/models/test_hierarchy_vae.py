"""The Gaussian twin: its bound in closed form, and the same z each time."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqvae_jax.errors import UserError
from vqvae_jax.models.global_latents import GlobalLatents
from vqvae_jax.models.hierarchy import Hierarchy
from vqvae_jax.models.hierarchy_vae import HierarchyVAE
from vqvae_jax.training.state import Model

SMALL = {
    "grid": (4, 5, 1),
    "num_codes": 6,
    "latents": 3,
    "dim": 2,
    "stages": 1,
    "encoder_units": 8,
    "residual_blocks": 0,
    "map_features": 6,
    "layers": 1,
    "units": 8,
    "kernel_size": 3,
}
MODEL = HierarchyVAE(**SMALL)


@pytest.fixture(scope="module")
def batch():
    codes = jax.random.randint(jax.random.key(3), (8, 4, 5, 1), 0, 6)
    return {"codes": codes, "mask": jnp.arange(8) < 6}


@pytest.fixture(scope="module")
def params(batch):
    return jax.jit(MODEL.init)(jax.random.key(0), batch)


def test_has_the_networks_of_the_second_vqvae():
    hierarchy = Hierarchy(**SMALL, latent_codes=9, beta=3.0)
    twin = HierarchyVAE.like(hierarchy)
    assert twin == MODEL
    assert twin.decoder == hierarchy.decoder
    for field in dataclasses.fields(GlobalLatents):
        assert getattr(twin, field.name) == getattr(hierarchy, field.name)
    assert isinstance(twin, Model)


def test_bound_is_reconstruction_and_closed_form_kl(params, batch):
    heads = jax.jit(MODEL._encoder_to(2).apply)(params.encoder, batch["codes"])
    mean, log_variance = np.split(np.float64(heads), 2, axis=1)
    kl = 0.5 * (mean**2 + np.exp(log_variance) - 1 - log_variance).sum(axis=1)
    z = jax.jit(MODEL.encode)(params, batch["codes"])
    assert z.shape == (8, 6)
    nats = -np.float64(jax.jit(MODEL.log_prob)(params, batch["codes"], z))
    found = jax.jit(MODEL.evaluate)(params, batch)
    values = {name: float(metric.total / 6) for name, metric in found.items()}
    assert values["loss"] == pytest.approx((nats + kl)[:6].mean() / 20, rel=1e-5)
    bits = kl[:6].mean() / math.log(2)
    assert values["kl_bits_per_frame"] == pytest.approx(bits, rel=1e-4)
    assert kl.min() > 0.1


def test_z_is_drawn_around_the_mean_and_of_each_frame_alone(params, batch):
    codes = batch["codes"]
    encode = jax.jit(MODEL.encode)
    z = encode(params, codes)
    np.testing.assert_allclose(encode(params, codes[::-1])[::-1], z, rtol=1e-5)
    heads = jax.jit(MODEL._encoder_to(2).apply)(params.encoder, codes)
    mean, log_variance = np.split(np.asarray(heads), 2, axis=1)
    epsilon = (z - mean) / np.exp(log_variance / 2)
    assert 0.5 < np.std(epsilon) < 1.5
    assert len(np.unique(np.round(epsilon, 4))) == epsilon.size
    other = jax.jit(MODEL.loss)(params, jax.random.key(1), batch)[0]
    assert other != jax.jit(MODEL.loss)(params, jax.random.key(2), batch)[0]


def test_other_sizes_are_refused(params):
    with pytest.raises(UserError, match=r"z must have shape \[B, 6\]"):
        MODEL.decode(params, jax.random.key(0), np.zeros((2, 5), np.float32))
