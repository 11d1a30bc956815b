"""Batches are split over eight devices, everything else is replicated."""

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from vqvae_jax.runtime.errors import UserError
from vqvae_jax.training import sharding


def test_the_mesh_has_one_axis_of_all_devices(mesh):
    assert dict(mesh.shape) == {"data": 8}


def test_the_mesh_is_ordered_by_process(monkeypatch):
    """The order in which JAX lists the devices does not matter."""
    devices = jax.devices()
    shuffled = [devices[i] for i in (5, 0, 7, 2, 4, 1, 6, 3)]
    monkeypatch.setattr(jax, "devices", lambda: shuffled)
    assert sharding.data_mesh().devices.tolist() == devices


def test_put_replicated_copies_to_every_device(mesh):
    tree = {"x": np.arange(6, dtype="f4").reshape(2, 3), "n": jax.numpy.int32(4)}
    placed = sharding.put_replicated(tree, mesh)
    for name, array in placed.items():
        assert array.sharding == sharding.replicated(mesh)
        assert array.dtype == tree[name].dtype
        assert len(array.addressable_shards) == 8
        for shard in array.addressable_shards:
            np.testing.assert_array_equal(shard.data, tree[name])


def test_put_batch_splits_the_leading_axis(mesh):
    assert sharding.replicated(mesh).is_fully_replicated
    x = np.arange(48, dtype="f4").reshape(16, 3)
    batch = sharding.put_batch({"x": x, "mask": np.ones(16, bool)}, mesh)
    assert batch["x"].sharding == NamedSharding(mesh, PartitionSpec("data"))
    for shard in batch["x"].addressable_shards:
        np.testing.assert_array_equal(shard.data, x[shard.index])
        assert shard.data.shape == (2, 3)
    np.testing.assert_array_equal(batch["x"], x)
    assert batch["mask"].dtype == bool


def test_an_indivisible_batch_size_raises_with_its_key(mesh):
    sharding.require_divisible(16, mesh, key="training.batch_size")
    with pytest.raises(
        UserError, match=r"^training.batch_size=12 must be a multiple of the 8 devices"
    ):
        sharding.require_divisible(12, mesh, key="training.batch_size")


def test_batches_of_evaluation_are_rounded_up():
    assert jax.device_count() == 8
    assert [sharding.rounded_up(size) for size in (1, 8, 100)] == [8, 8, 104]
