"""Devices and transformations change nothing.

Numbers in brackets are rows of the list of known defects in docs/conformance.md.
"""

import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from vqvae_jax import quantizers
from vqvae_jax.quantizers import Codebook


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
        codes = quantizers.quantize(codebook, z_e).codes
        codebook = quantizers.ema_update(
            codebook, z_e, codes, decay=0.9, axis_name=axis_name
        )
        return quantizers.restart(
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

    @pytest.mark.parametrize("check_vma", [True, False])
    def test_shard_map(
        self, check_vma, codebook, batches, expected, assert_codebooks_close
    ):
        mesh = Mesh(np.array(jax.devices()), ("data",))
        step = jax.jit(
            jax.shard_map(
                lambda c, z: self.step(c, z, "data"),
                mesh=mesh,
                in_specs=(PartitionSpec(), PartitionSpec("data")),
                out_specs=PartitionSpec(),
                check_vma=check_vma,
            )
        )
        assert_codebooks_close(twenty_steps(step, codebook, batches), expected)

    @pytest.mark.parametrize("check_vma", [True, False])
    def test_gradients_and_k_means_in_shard_map(
        self, check_vma, codebook, batches, mask, assert_codebooks_close
    ):
        """Of a codebook that all devices share, and of one that each has of its own."""
        z_e, mask = batches[0], jnp.arange(64) % 3 > 0

        def losses(embeddings, z_e, mask):
            replaced = codebook._replace(embeddings=embeddings)
            out = quantizers.quantize(replaced, z_e, mask)
            read = quantizers.lookup(replaced, out.codes)
            losses = out.codebook_loss + out.commitment_loss
            return losses.sum() + jnp.sin(out.z_q).sum() + jnp.sin(read).sum()

        gradients = jax.grad(losses, (0, 1))

        def on_device(codebook, z_e, mask):
            shared = gradients(codebook.embeddings, z_e, mask)
            if not check_vma:
                # With the check a gradient of what devices share is summed already.
                shared = lax.psum(shared[0], "data"), shared[1]
            own = codebook.embeddings + 0 * z_e.sum()
            fitted = quantizers.kmeans(
                jax.random.key(0), codebook, z_e, mask=mask, axis_name="data"
            )
            usage = quantizers.usage(
                quantizers.nearest(codebook.embeddings, z_e.reshape(8, 3, 4)),
                num_codes=7,
                mask=mask,
            )
            own = gradients(own, z_e, mask)[0][None]
            return shared, own, fitted, lax.psum(usage, "data")

        one, split = PartitionSpec(), PartitionSpec("data")
        shared, own, fitted, usage = jax.jit(
            jax.shard_map(
                on_device,
                mesh=Mesh(np.array(jax.devices()), ("data",)),
                in_specs=(one, split, split),
                out_specs=((one, split), split, one, one),
                check_vma=check_vma,
            )
        )(codebook, z_e, mask)
        expected = jax.jit(gradients)(codebook.embeddings, z_e, mask)
        assert_codebooks_close(shared, expected)
        np.testing.assert_allclose(own.sum(0), expected[0], rtol=1e-5, atol=1e-5)
        assert_codebooks_close(
            fitted, quantizers.kmeans(jax.random.key(0), codebook, z_e, mask=mask)
        )
        codes = quantizers.quantize(codebook, z_e).codes
        np.testing.assert_array_equal(
            usage, quantizers.usage(codes, num_codes=7, mask=mask)
        )


class TestModelAxis:
    """A codebook whose rows are split over devices, vectors over others."""

    ROWS, DATA = PartitionSpec(None, "model"), PartitionSpec("data")

    @pytest.fixture(autouse=True)
    def several_tiles(self, set_tile):
        set_tile(codes=16, vectors=32)

    @pytest.fixture
    def model_mesh(self):
        auto = (AxisType.Auto, AxisType.Auto)
        return jax.make_mesh((4, 2), ("data", "model"), axis_types=auto)

    @staticmethod
    def compiled(function, mesh, arguments, in_specs, out_specs):
        """Return the program for the mesh, and its results."""
        put = functools.partial(NamedSharding, mesh)
        arguments = jax.device_put(arguments, jax.tree.map(put, in_specs))
        jitted = jax.jit(function, out_shardings=jax.tree.map(put, out_specs))
        program = jitted.lower(*arguments).compile()
        return program, program(*arguments)

    @staticmethod
    def sent(program):
        """Return how many numbers each exchange between devices has."""
        kinds = "all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter"
        found = re.findall(rf"= (.*?) (?:{kinds})(?:-start)?\(", program.as_text())
        shapes = [re.findall(r"\w+\[([\d,]*)\]", result) for result in found]
        return [
            math.prod(map(int, filter(None, shape.split(","))))
            for results in shapes
            for shape in results
        ]

    @staticmethod
    def step(codebook, z_e):
        """All that training does to a codebook."""

        def loss(embeddings, z_e):
            out = quantizers.quantize(codebook._replace(embeddings=embeddings), z_e)
            losses = out.commitment_loss + out.codebook_loss
            return losses.sum() + (out.z_q**2).sum(), out.codes

        gradients, codes = jax.grad(loss, (0, 1), has_aux=True)(
            codebook.embeddings, z_e
        )
        codebook = quantizers.ema_update(codebook, z_e, codes, decay=0.5)
        key = jax.random.key(0)
        codebook = quantizers.restart(key, codebook, z_e, min_count=1.0)
        usage = quantizers.usage(codes, num_codes=codebook.counts.shape[1])
        fitted = quantizers.kmeans(key, codebook, z_e, iterations=2)
        return codebook, gradients, codes, usage, fitted

    def test_training_is_the_same(self, model_mesh):
        N, K, D = 512, 64, 4
        rng = np.random.default_rng(0)
        # Each row twice, on different devices: of two nearest the lower index counts.
        half = rng.normal(size=(2, K // 2, D))
        rows = np.concatenate([half, half], axis=1)
        codebook = quantizers.from_embeddings(jnp.asarray(rows, "float32"))
        z_e = jnp.asarray(rng.normal(size=(N, 2 * D)), "float32")
        in_specs = (Codebook(*[self.ROWS] * 3), self.DATA)
        gradients = (self.ROWS, self.DATA)
        out_specs = (in_specs[0], gradients, self.DATA, self.ROWS, in_specs[0])
        program, found = self.compiled(
            self.step, model_mesh, (codebook, z_e), in_specs, out_specs
        )
        expected = jax.jit(self.step)(codebook, z_e)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
        assert max(expected[2].ravel()) < K // 2
        for leaf in found[0]:
            assert leaf.addressable_shards[0].data.shape[1] == K // 2
        # Distances would be N x K numbers of each codebook, or a device's part of them.
        assert 0 < max(self.sent(program)) < N * K // 8

    def test_a_device_searches_its_own_rows(self, model_mesh):
        """Nothing larger than a number for each vector goes between devices."""
        N, K, D = 64, 64, 16
        rng = np.random.default_rng(0)
        e = jnp.asarray(rng.normal(size=(1, K, D)), "float32")
        vectors = jnp.asarray(rng.normal(size=(N, 1, D)), "float32")
        program, codes = self.compiled(
            quantizers.nearest,
            model_mesh,
            (e, vectors),
            (self.ROWS, self.DATA),
            self.DATA,
        )
        np.testing.assert_array_equal(codes, quantizers.nearest(e, vectors))
        assert 0 < max(self.sent(program)) <= N
