"""Codebooks that devices share, hold separately, or split by rows.

Numbers in brackets are rows of the list of known defects in docs/conformance.md.
`test_contract.py` compares the states of 1 and of 8 devices.
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
from vqvae_jax.quantizers import VQ, Codebook

KEY = jax.random.key(0)


@pytest.mark.parametrize("check_vma", [True, False])
def test_gradients_and_kmeans_in_shard_map(
    check_vma, vq, codebook, assert_codebooks_close
):
    """[7] With a codebook that devices share, and one that each holds separately."""
    rng = np.random.default_rng(7)
    z_e = jnp.asarray(rng.normal(size=(64, vq.features)), "float32")
    mask = jnp.arange(64) % 3 > 0

    def losses(embeddings, z_e, mask):
        replaced = codebook._replace(embeddings=embeddings)
        out = vq.quantize(replaced, z_e, mask)
        rows = vq.lookup(replaced, out.codes)
        losses = out.losses["codebook"] + out.losses["commitment"]
        return losses.sum() + jnp.sin(out.z_q).sum() + jnp.sin(rows).sum()

    gradients = jax.grad(losses, (0, 1))

    def on_device(codebook, z_e, mask):
        shared = gradients(codebook.embeddings, z_e, mask)
        if not check_vma:
            # With the check, the gradient of a shared array is summed already.
            shared = lax.psum(shared[0], "data"), shared[1]
        separate = codebook.embeddings + 0 * z_e.sum()
        fitted = quantizers.kmeans(KEY, codebook, z_e, mask=mask, axis_name="data")
        usage = quantizers.usage(
            quantizers.nearest(codebook.embeddings, z_e.reshape(8, 3, 4)),
            num_codes=7,
            mask=mask,
        )
        separate = gradients(separate, z_e, mask)[0][None]
        return shared, separate, fitted, lax.psum(usage, "data")

    one, split = PartitionSpec(), PartitionSpec("data")
    shared, separate, fitted, usage = jax.jit(
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
    np.testing.assert_allclose(separate.sum(0), expected[0], rtol=1e-5, atol=1e-5)
    assert_codebooks_close(fitted, quantizers.kmeans(KEY, codebook, z_e, mask=mask))
    codes = vq.quantize(codebook, z_e).codes
    np.testing.assert_array_equal(
        usage, quantizers.usage(codes, num_codes=7, mask=mask)
    )


class TestModelAxis:
    """A codebook whose rows are split over devices, with vectors split over others."""

    ROWS, DATA = PartitionSpec(None, "model"), PartitionSpec("data")

    @pytest.fixture(autouse=True)
    def several_tiles(self, set_tile):
        set_tile(codes=16, vectors=32)

    @pytest.fixture
    def model_mesh(self):
        auto = (AxisType.Auto, AxisType.Auto)
        return jax.make_mesh((4, 2), ("data", "model"), axis_types=auto)

    @staticmethod
    def run_on_mesh(function, mesh, arguments, in_specs, out_specs):
        """Return the program compiled for the mesh, and its results."""
        put = functools.partial(NamedSharding, mesh)
        arguments = jax.device_put(arguments, jax.tree.map(put, in_specs))
        jitted = jax.jit(function, out_shardings=jax.tree.map(put, out_specs))
        program = jitted.lower(*arguments).compile()
        return program, program(*arguments)

    @staticmethod
    def collective_sizes(program):
        """Return the number of elements of each collective."""
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
        """Compute gradients, EMA and restarts, usage, and k-means."""
        num_codebooks, num_codes, dim = codebook.embeddings.shape
        vq = VQ(
            num_codes=num_codes,
            dim=dim,
            num_codebooks=num_codebooks,
            codebook_update="ema",
            ema_decay=0.5,
            dead_code_threshold=1.0,
        )

        def loss(embeddings, z_e):
            out = vq.quantize(codebook._replace(embeddings=embeddings), z_e)
            losses = out.losses["commitment"] + out.losses["codebook"]
            return losses.sum() + (out.z_q**2).sum(), out.codes

        gradients, codes = jax.grad(loss, (0, 1), has_aux=True)(
            codebook.embeddings, z_e
        )
        codebook = vq.update(codebook, z_e, codes, key=KEY)
        usage = quantizers.usage(codes, num_codes=num_codes)
        fitted = quantizers.kmeans(KEY, codebook, z_e, iterations=2)
        return codebook, gradients, codes, usage, fitted

    def test_training_equals_that_of_one_device(self, model_mesh):
        N, K, D = 512, 64, 4
        rng = np.random.default_rng(0)
        # Each row twice, on different devices: the lower of two nearest indices wins.
        half = rng.normal(size=(2, K // 2, D))
        rows = np.concatenate([half, half], axis=1)
        codebook = quantizers.from_embeddings(jnp.asarray(rows, "float32"))
        z_e = jnp.asarray(rng.normal(size=(N, 2 * D)), "float32")
        in_specs = (Codebook(*[self.ROWS] * 3), self.DATA)
        gradients = (self.ROWS, self.DATA)
        out_specs = (in_specs[0], gradients, self.DATA, self.ROWS, in_specs[0])
        program, found = self.run_on_mesh(
            self.step, model_mesh, (codebook, z_e), in_specs, out_specs
        )
        expected = jax.jit(self.step)(codebook, z_e)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
        assert max(expected[2].ravel()) < K // 2
        for leaf in found[0]:
            assert leaf.addressable_shards[0].data.shape[1] == K // 2
        # Distances would be N x K elements for each codebook, or a device's share.
        assert 0 < max(self.collective_sizes(program)) < N * K // 8

    def test_a_device_searches_only_its_rows(self, model_mesh):
        """No collective is larger than one number for each vector."""
        N, K, D = 64, 64, 16
        rng = np.random.default_rng(0)
        e = jnp.asarray(rng.normal(size=(1, K, D)), "float32")
        vectors = jnp.asarray(rng.normal(size=(N, 1, D)), "float32")
        program, codes = self.run_on_mesh(
            quantizers.nearest,
            model_mesh,
            (e, vectors),
            (self.ROWS, self.DATA),
            self.DATA,
        )
        np.testing.assert_array_equal(codes, quantizers.nearest(e, vectors))
        assert 0 < max(self.collective_sizes(program)) <= N
