"""One mesh axis, `data`: batches are split over it, everything else is replicated."""

from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from vqvae_jax.runtime.errors import require


def data_mesh() -> Mesh:
    """Return a mesh of all devices along `data`, process by process.

    So a batch is split in order: its first rows are those of the first process.
    """
    devices = sorted(jax.devices(), key=lambda each: (each.process_index, each.id))
    return Mesh(np.array(devices), ("data",), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the sharding of parameters: a copy on each device."""
    return NamedSharding(mesh, PartitionSpec())


def split_batch(mesh: Mesh) -> NamedSharding:
    """Return the sharding of a batch: its leading axis split over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def require_divisible(
    batch_size: int, mesh: Mesh, *, key: str, accumulate: int = 1
) -> None:
    """Raise UserError, naming the config key, unless the batch splits evenly."""
    parts = f" x accumulate={accumulate}" if accumulate > 1 else ""
    require(
        batch_size % (mesh.size * accumulate) == 0,
        f"{key}={batch_size} must be a multiple of the {mesh.size} devices{parts}",
    )


def put_replicated(tree: Any, mesh: Mesh) -> Any:
    """Copy arrays that are the same in all processes to each device."""
    sharding = replicated(mesh)
    return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), tree
    )


def put_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> Any:
    """Start the transfer of this process's share of a global batch to its devices."""
    sharding = split_batch(mesh)
    return {
        name: jax.make_array_from_process_local_data(sharding, array)
        for name, array in batch.items()
    }
