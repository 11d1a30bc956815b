"""The VAE with the second VQ-VAE's networks: its bound, and deterministic z."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqvae_jax.networks.pixelcnn import PixelCNN
from vqvae_jax.quantizers import VQ
from vqvae_jax.runtime.errors import UserError
from vqvae_jax.tasks.hierarchy.global_latents import GlobalDecoder, GlobalEncoder
from vqvae_jax.tasks.hierarchy.model import Hierarchy, HierarchyVAE

SMALL = {"channels": 8, "num_downsamples": 1, "residual_blocks": 0}
SHARED = {
    "grid": (4, 5, 1),
    "num_codes": 6,
    "encoder": GlobalEncoder(**SMALL),
    "to_map": GlobalDecoder(out_channels=6, **SMALL),
    "pixelcnn": PixelCNN(layers=1, channels=8, kernel_size=3),
}
MODEL = HierarchyVAE(z_features=6, **SHARED)


@pytest.fixture(scope="module")
def batch():
    codes = jax.random.randint(jax.random.key(3), (8, 4, 5, 1), 0, 6)
    return {"codes": codes, "mask": jnp.arange(8) < 6}


@pytest.fixture(scope="module")
def params(batch):
    return jax.jit(MODEL.init)(jax.random.key(0), batch)


def test_has_the_networks_and_the_width_of_the_second_vqvae():
    quantizer = VQ(num_codebooks=3, num_codes=9, dim=2, beta=3.0)
    hierarchy = Hierarchy(quantizer=quantizer, **SHARED)
    assert hierarchy.continuous == MODEL
    assert hierarchy.continuous.decoder == hierarchy.decoder


@pytest.fixture(scope="module")
def measured(params, batch):
    """The results of all methods on one batch, compiled once."""

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


def test_z_is_drawn_around_the_mean_and_depends_on_its_frame_alone(measured):
    z = measured["z"]
    assert z.shape == (8, 6)
    np.testing.assert_allclose(measured["backwards"], z, rtol=1e-5)
    mean, log_variance = np.split(measured["heads"], 2, axis=1)
    epsilon = (z - mean) / np.exp(log_variance / 2)
    assert 0.5 < np.std(epsilon) < 1.5
    assert len(np.unique(np.round(epsilon, 4))) == epsilon.size
    # In training z depends on the key.
    first, second = measured["losses"]
    assert first != second


def test_other_sizes_raise(params):
    with pytest.raises(UserError, match=r"z must have shape \[B, 6\]"):
        MODEL.decode(params, jax.random.key(0), np.zeros((2, 5), np.float32))
