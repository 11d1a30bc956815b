"""What a checkpoint says of its arrays, so that damage to them is found.

A record is JSON: the shape and the CRC-32 of every array, and the CRC-32 of all that.
Any error within 32 successive bits, a flipped byte among them, changes a CRC-32.
"""

import json
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from vqvae_jax.runtime.tree_utils import Shapes, shapes_of

Record = Mapping[str, Any]


class DamagedError(ValueError):
    """What was read is not what was written."""


def checksum(values: Any) -> int:
    """Return the checksum of values that JSON can hold."""
    return zlib.crc32(json.dumps(values, sort_keys=True).encode())


def record_of(tree: Any) -> Record:
    """Return the record of a pytree of arrays, each of which this process has whole."""
    arrays = {
        name: [list(shape), _of_array(leaf)]
        for (name, shape), leaf in zip(
            shapes_of(tree).items(), jax.tree.leaves(tree), strict=True
        )
    }
    return {"arrays": arrays, "checksum": checksum(arrays)}


def shapes_in(record: Any) -> Shapes:
    """Return the shapes that a record tells.

    Raises:
      DamagedError: the record is damaged.
    """
    if not isinstance(record, Mapping) or set(record) != {"arrays", "checksum"}:
        raise DamagedError("its record of checksums is damaged")
    if checksum(record["arrays"]) != record["checksum"]:
        raise DamagedError("its record of checksums is damaged")
    return {name: tuple(shape) for name, (shape, _) in record["arrays"].items()}


def require_intact(tree: Any, record: Record) -> None:
    """See that arrays are those of a record whose shapes they have.

    Raises:
      DamagedError: a checksum differs; the message names the first array.
    """
    for name, leaf in zip(shapes_of(tree), jax.tree.leaves(tree), strict=True):
        if _of_array(leaf) != record["arrays"][name][1]:
            raise DamagedError(f"{name} is not as it was written")


def require_same(values: Any, expected: int) -> None:
    """See that JSON values are those of a checksum.

    Raises:
      DamagedError: they are not.
    """
    if checksum(values) != expected:
        raise DamagedError("its place in the data is not as it was written")


def _of_array(leaf: Any) -> int:
    return zlib.crc32(np.ascontiguousarray(leaf).view(np.uint8).data)
