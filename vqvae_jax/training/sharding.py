"""A mesh with one axis, `data`: batches are split over it, the rest is replicated."""

from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from vqvae_jax.runtime.errors import require


def data_mesh() -> Mesh:
    """Return a mesh of all devices along `data`, ordered by process.

    A batch is therefore split in order: the first process holds its first rows.
    """
    devices = sorted(jax.devices(), key=lambda each: (each.process_index, each.id))
    return Mesh(np.array(devices), ("data",), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the sharding of parameters: one copy per device."""
    return NamedSharding(mesh, PartitionSpec())


def split_batch(mesh: Mesh) -> NamedSharding:
    """Return the sharding of a batch: the leading axis is split over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def require_divisible(
    batch_size: int, mesh: Mesh, *, key: str, accumulate: int = 1
) -> None:
    """Raise UserError naming the config key unless the batch splits evenly."""
    parts = f" x accumulate={accumulate}" if accumulate > 1 else ""
    require(
        batch_size % (mesh.size * accumulate) == 0,
        f"{key}={batch_size} must be a multiple of the {mesh.size} devices{parts}",
    )


def put_replicated(tree: Any, mesh: Mesh) -> Any:
    """Copy arrays that are equal in all processes to every device."""
    sharding = replicated(mesh)
    return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), tree
    )


def put_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> Any:
    """Start to transfer this process's rows of a global batch to its devices."""
    sharding = split_batch(mesh)
    return {
        name: jax.make_array_from_process_local_data(sharding, array)
        for name, array in batch.items()
    }
