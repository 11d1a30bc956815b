"""The Gaussian twin: its bound in closed form, and the same z each time."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqvae_jax.runtime.errors import UserError
from vqvae_jax.tasks.hierarchy.global_latents import GlobalLatents
from vqvae_jax.tasks.hierarchy.model import Hierarchy
from vqvae_jax.tasks.hierarchy.vae import HierarchyVAE
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


@pytest.fixture(scope="module")
def measured(params, batch):
    """All that the methods say of one batch, compiled once."""

    @jax.jit
    def measure(params, batch):
        codes = batch["codes"]
        z = MODEL.encode(params, codes)
        keys = jax.random.split(jax.random.key(1))
        return {
            "heads": MODEL._encoder_to(2).apply(params.encoder, codes),
            "z": z,
            "backwards": MODEL.encode(params, codes[::-1])[::-1],
            "nats": -MODEL.log_prob(params, codes, z),
            "losses": [MODEL.loss(params, key, batch)[0] for key in keys],
            "evaluated": MODEL.evaluate(params, batch),
        }

    return jax.device_get(measure(params, batch))


def test_bound_is_reconstruction_and_closed_form_kl(measured):
    mean, log_variance = np.split(np.float64(measured["heads"]), 2, axis=1)
    kl = 0.5 * (mean**2 + np.exp(log_variance) - 1 - log_variance).sum(axis=1)
    nats = np.float64(measured["nats"])
    found = measured["evaluated"]
    values = {name: float(metric.total / 6) for name, metric in found.items()}
    assert values["loss"] == pytest.approx((nats + kl)[:6].mean() / 20, rel=1e-5)
    bits = kl[:6].mean() / math.log(2)
    assert values["kl_bits_per_frame"] == pytest.approx(bits, rel=1e-4)
    assert kl.min() > 0.1


def test_z_is_drawn_around_the_mean_and_of_each_frame_alone(measured):
    z = measured["z"]
    assert z.shape == (8, 6)
    np.testing.assert_allclose(measured["backwards"], z, rtol=1e-5)
    mean, log_variance = np.split(measured["heads"], 2, axis=1)
    epsilon = (z - mean) / np.exp(log_variance / 2)
    assert 0.5 < np.std(epsilon) < 1.5
    assert len(np.unique(np.round(epsilon, 4))) == epsilon.size
    # While training it is another z each time.
    first, second = measured["losses"]
    assert first != second


def test_other_sizes_are_refused(params):
    with pytest.raises(UserError, match=r"z must have shape \[B, 6\]"):
        MODEL.decode(params, jax.random.key(0), np.zeros((2, 5), np.float32))
