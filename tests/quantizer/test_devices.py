"""Devices and transformations change nothing.

Numbers in brackets are rows of the list of known defects in docs/conformance.md.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vqvae_jax import quantizer


@pytest.fixture
def assert_equal_on_all_devices(assert_codebooks_close):
    def check(stacked, expected):
        for device in range(8):
            assert_codebooks_close([x[device] for x in stacked], expected)

    return check


def twenty_steps(update, codebook, batches):
    for z_e in batches:
        codebook = update(codebook, z_e)
    return codebook


class TestDevices:
    """[7] 1 device and 8 devices keep the same codebook for 20 steps."""

    @pytest.fixture
    def batches(self, codebook):
        G, _, D = codebook.embeddings.shape
        rng = np.random.default_rng(7)
        return [jnp.asarray(rng.normal(size=(64, G * D)), "f4") for _ in range(20)]

    @staticmethod
    def step(codebook, z_e, axis_name=None):
        codes = quantizer.quantize(codebook, z_e).codes
        codebook = quantizer.ema_update(
            codebook, z_e, codes, decay=0.9, axis_name=axis_name
        )
        return quantizer.restart(
            jax.random.key(0), codebook, z_e, min_count=1.0, axis_name=axis_name
        )

    @pytest.fixture
    def expected(self, codebook, batches):
        return twenty_steps(jax.jit(self.step), codebook, batches)

    def test_jit_with_sharding(
        self, codebook, batches, expected, assert_codebooks_close
    ):
        mesh = Mesh(np.array(jax.devices()), ("data",))
        split = NamedSharding(mesh, PartitionSpec("data"))
        one = NamedSharding(mesh, PartitionSpec())
        step = jax.jit(self.step, out_shardings=one)
        sharded = [jax.device_put(b, split) for b in batches]
        ours = twenty_steps(step, jax.device_put(codebook, one), sharded)
        assert_codebooks_close(ours, expected)

    def test_pmap(self, codebook, batches, expected, assert_equal_on_all_devices):
        step = jax.pmap(
            lambda c, z: self.step(c, z, "data"), axis_name="data", in_axes=(0, 0)
        )
        eight = jax.tree.map(lambda x: jnp.stack([x] * 8), codebook)
        split = [b.reshape(8, 8, -1) for b in batches]
        ours = twenty_steps(step, eight, split)
        assert_equal_on_all_devices(ours, expected)

    def test_shard_map(self, codebook, batches, expected, assert_codebooks_close):
        mesh = Mesh(np.array(jax.devices()), ("data",))
        step = jax.jit(
            jax.shard_map(
                lambda c, z: self.step(c, z, "data"),
                mesh=mesh,
                in_specs=(PartitionSpec(), PartitionSpec("data")),
                out_specs=PartitionSpec(),
                check_vma=False,
            )
        )
        assert_codebooks_close(twenty_steps(step, codebook, batches), expected)

    def test_kmeans_in_pmap_fits_one_codebook(
        self, codebook, batches, assert_equal_on_all_devices
    ):
        z_e = batches[0]
        alone = quantizer.kmeans(jax.random.key(3), codebook, z_e)
        fit = jax.pmap(
            lambda z: quantizer.kmeans(
                jax.random.key(3), codebook, z, axis_name="data"
            ),
            axis_name="data",
        )
        ours = fit(z_e.reshape(8, 8, -1))
        assert_equal_on_all_devices(ours, alone)


def test_works_under_vmap_scan_and_remat(codebook, z_e):
    flat = z_e.reshape(-1, z_e.shape[-1])
    expected = quantizer.quantize(codebook, flat)
    mapped = jax.vmap(quantizer.quantize, in_axes=(None, 0))(codebook, flat)
    _, scanned = jax.lax.scan(
        lambda c, z: (c, quantizer.quantize(c, z)), codebook, flat
    )
    for ours in (mapped, scanned):
        for a, b in zip(ours, expected, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)

    def loss(z):
        return quantizer.quantize(codebook, z).commitment_loss.sum()

    np.testing.assert_allclose(
        jax.grad(jax.checkpoint(loss))(flat), jax.grad(loss)(flat), atol=1e-6
    )
