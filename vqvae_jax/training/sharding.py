"""A mesh with one axis, `data`: batches are split over it, the rest is replicated."""

import math
import os
from collections.abc import Sequence
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


def rounded_up(batch_size: int) -> int:
    """Return the next batch size that splits evenly over all devices."""
    return -(-batch_size // jax.device_count()) * jax.device_count()


def require_room(num_bytes: int, *, key: str) -> None:
    """Raise UserError naming the config key unless half of each device has room."""
    for device in jax.local_devices():
        room = (device.memory_stats() or {}).get("bytes_limit", math.inf)
        require(
            num_bytes <= room / 2,
            f"{key}=True keeps {num_bytes / 2**30:.1f} GiB in each device's memory of "
            f"{room / 2**30:.1f} GiB, which leaves too little for training: set it to "
            "False",
        )


def require_memory(num_bytes: int, *, what: str) -> None:
    """Raise UserError unless each local device can hold its copy of so many bytes.

    CPU devices share the memory of the machine.
    """
    devices = jax.local_devices()
    room = (devices[0].memory_stats() or {}).get("bytes_limit")
    if room is None and devices[0].platform == "cpu":
        room = _physical_memory() / len(devices)
    if room is not None:
        require(
            num_bytes <= room,
            f"{what} take {num_bytes} bytes, {num_bytes / 2**30:.1f} GiB, and each of "
            f"{len(devices)} devices has {room / 2**30:.1f} GiB of memory: use a "
            "smaller model, such as fewer channels or codes",
        )


def _physical_memory() -> int | float:
    """Return the bytes of memory of this machine; infinity if unknown."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return math.inf


def put_replicated(tree: Any, mesh: Mesh) -> Any:
    """Copy arrays that are equal in all processes to every device."""
    sharding = replicated(mesh)
    return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), tree
    )


def put_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> Any:
    """Start to transfer this process's rows of a global batch to its devices."""
    return _put(batch, split_batch(mesh))


def put_batches(batches: Sequence[dict[str, np.ndarray]], mesh: Mesh) -> Any:
    """Stack batches of equal shapes, and start to transfer them as `put_batch` does."""
    stacked = {name: np.stack([b[name] for b in batches]) for name in batches[0]}
    return _put(stacked, NamedSharding(mesh, PartitionSpec(None, "data")))


def _put(arrays: dict[str, np.ndarray], sharding: NamedSharding) -> Any:
    return {
        name: jax.make_array_from_process_local_data(sharding, array)
        for name, array in arrays.items()
    }
