"""Hashes: CRC-32 records that detect damaged arrays, and SHA-256 fingerprints.

A record is JSON: the shape and the CRC-32 of every array, and the CRC-32 of all that.
Any error within 32 successive bits, including a flipped byte, changes a CRC-32.
"""

import hashlib
import json
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from vqvae_jax.runtime.tree_utils import Shapes, shapes_of

Record = Mapping[str, Any]

# Hex digits of a shortened SHA-256, 64 bits: enough to tell files and models apart.
_SHORT_DIGITS = 16


class DamagedError(ValueError):
    """The data that was read differs from the data that was written."""


def sha256_of_arrays(arrays: Mapping[str, np.ndarray]) -> str:
    """Return the SHA-256 of names and bytes of arrays, sorted by name, in hex."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(name.encode())
        digest.update(arrays[name].tobytes())
    return digest.hexdigest()


def sha256_of_leaves(*leaves: Any) -> str:
    """Return 16 hex digits of the SHA-256 of the bytes of arrays, in order."""
    digest = hashlib.sha256()
    for leaf in leaves:
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()[:_SHORT_DIGITS]


def sha256_of_bytes(data: bytes) -> str:
    """Return 16 hex digits of the SHA-256 of `data`."""
    return hashlib.sha256(data).hexdigest()[:_SHORT_DIGITS]


def short_sha256(*parts: bytes, size: int) -> bytes:
    """Return the first `size` bytes of the SHA-256 of parts, each after its length.

    The lengths distinguish (b"ab", b"c") from (b"a", b"bc").
    """
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8))
        digest.update(part)
    return digest.digest()[:size]


def checksum(values: Any) -> int:
    """Return the CRC-32 of JSON-serializable values."""
    return zlib.crc32(json.dumps(values, sort_keys=True).encode())


def record_of(tree: Any) -> Record:
    """Return the record of a pytree of arrays; this process must hold them whole."""
    arrays = {
        name: [list(shape), _crc_of_array(leaf)]
        for (name, shape), leaf in zip(
            shapes_of(tree).items(), jax.tree.leaves(tree), strict=True
        )
    }
    return {"arrays": arrays, "checksum": checksum(arrays)}


def shapes_in(record: Any) -> Shapes:
    """Return the shapes stored in a record.

    Raises:
      DamagedError: the record is damaged.
    """
    if not isinstance(record, Mapping) or set(record) != {"arrays", "checksum"}:
        raise DamagedError("the checksum record is damaged")
    if checksum(record["arrays"]) != record["checksum"]:
        raise DamagedError("the checksum record is damaged")
    return {name: tuple(shape) for name, (shape, _) in record["arrays"].items()}


def require_intact(tree: Any, record: Record) -> None:
    """Compare arrays with the checksums of a record that has the same shapes.

    Raises:
      DamagedError: a checksum differs; the message names the first array.
    """
    for name, leaf in zip(shapes_of(tree), jax.tree.leaves(tree), strict=True):
        if _crc_of_array(leaf) != record["arrays"][name][1]:
            raise DamagedError(f"{name} differs from what was written")


def require_same(values: Any, expected: int) -> None:
    """Compare the JSON values of a data iterator's state with their checksum.

    Raises:
      DamagedError: the checksum differs.
    """
    if checksum(values) != expected:
        raise DamagedError("the data iterator's state differs from what was written")


def _crc_of_array(leaf: Any) -> int:
    return zlib.crc32(np.ascontiguousarray(leaf).view(np.uint8).data)
