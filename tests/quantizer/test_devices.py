"""Devices and transformations change nothing.

Numbers in brackets are rows of the list of known defects in docs/conformance.md.
"""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

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


class TestModelAxis:
    """A codebook whose rows are split over devices, vectors over others."""

    N, K, D = 512, 64, 4

    @staticmethod
    def step(codebook, z_e):
        """All that training does to a codebook."""

        def loss(embeddings, z_e):
            out = quantizer.quantize(codebook._replace(embeddings=embeddings), z_e)
            losses = out.commitment_loss + out.codebook_loss
            return losses.sum() + (out.z_q**2).sum(), out.codes

        gradients, codes = jax.grad(loss, (0, 1), has_aux=True)(
            codebook.embeddings, z_e
        )
        codebook = quantizer.ema_update(codebook, z_e, codes, decay=0.5)
        key = jax.random.key(0)
        codebook = quantizer.restart(key, codebook, z_e, min_count=1.0)
        usage = quantizer.usage(codes, num_codes=codebook.counts.shape[1])
        fitted = quantizer.kmeans(key, codebook, z_e, iterations=2)
        return codebook, gradients, codes, usage, fitted

    @pytest.fixture
    def arguments(self):
        rng = np.random.default_rng(0)
        # Each row twice, on different devices: of two nearest the lower index counts.
        half = rng.normal(size=(2, self.K // 2, self.D))
        rows = np.concatenate([half, half], axis=1)
        codebook = quantizer.from_embeddings(jnp.asarray(rows, "float32"))
        z_e = jnp.asarray(rng.normal(size=(self.N, 2 * self.D)), "float32")
        return codebook, z_e

    def test_results_are_the_same_and_no_device_sees_all(self, arguments):
        expected = jax.jit(self.step)(*arguments)
        mesh = jax.make_mesh(
            (4, 2), ("data", "model"), axis_types=(AxisType.Auto, AxisType.Auto)
        )
        rows = NamedSharding(mesh, PartitionSpec(None, "model"))
        data = NamedSharding(mesh, PartitionSpec("data"))
        split = jax.device_put(arguments, (rows, data))
        step = jax.jit(self.step, out_shardings=(rows, (rows, data), data, rows, rows))
        compiled = step.lower(*split).compile()
        found = compiled(*split)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
        for leaf in jax.tree.leaves(found[0]):
            assert leaf.addressable_shards[0].data.shape[1] == self.K // 2
        # Of each vector's distances a device tells the others the smallest.
        gathered = re.findall(r"= \w+\[([\d,]+)\]\S* all-gather", compiled.as_text())
        assert gathered
        sizes = [math.prod(map(int, shape.split(","))) for shape in gathered]
        assert max(sizes) <= 2 * 2 * self.N
