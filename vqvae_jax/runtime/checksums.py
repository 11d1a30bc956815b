"""Shapes, CRC-32 records and SHA-256 fingerprints of pytrees of arrays.

A record, which detects damage, is JSON: the shape and the CRC-32 of every array, and
the CRC-32 of all that. Any error within 32 successive bits, including a flipped byte,
changes a CRC-32.
"""

import hashlib
import json
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from vqvae_jax.runtime.errors import UserError

Record = Mapping[str, Any]
Shapes = dict[str, tuple[int, ...]]

# Hex digits of a shortened SHA-256, 64 bits: enough to tell files and models apart.
_SHORT_DIGITS = 16


class DamagedError(ValueError):
    """The data that was read differs from the data that was written."""


def named_leaves(tree: Any) -> dict[str, Any]:
    """Return leaves, in tree order, by their path, such as "encoder/params/kernel"."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in leaves
    }


def shapes_of(tree: Any) -> Shapes:
    """Return the shape of every leaf by its path."""
    return {name: tuple(leaf.shape) for name, leaf in named_leaves(tree).items()}


def require_same_shapes(stored: Shapes, expected: Shapes, *, where: str) -> None:
    """Raise UserError unless the stored shapes are those the model expects.

    Raises:
      UserError: a shape differs, or an array is missing or unexpected; the message
        names the first and counts the rest.
    """
    problems = differences(stored, expected, where="in the checkpoint")
    if not problems:
        return
    more = f", and {len(problems) - 1} more differ" if len(problems) > 1 else ""
    raise UserError(
        f"{where}: {problems[0]}{more}: the model's sizes differ from those it was "
        "trained with"
    )


def differences(stored: Shapes, expected: Shapes, *, where: str) -> list[str]:
    """Return a message for each array whose shape differs, or that is in one only.

    Args:
      stored: shapes that were found.
      expected: shapes that the model expects.
      where: the stored arrays are, as "in the checkpoint".
    """
    shared = stored.keys() & expected.keys()
    differing = [
        f"{name} has shape {stored[name]} {where}, expected {expected[name]}"
        for name in sorted(shared)
        if stored[name] != expected[name]
    ]
    missing = [
        f"{name} of shape {expected[name]} is missing {where}"
        for name in sorted(expected.keys() - shared)
    ]
    surplus = [
        f"{name} of shape {stored[name]} {where} is not expected"
        for name in sorted(stored.keys() - shared)
    ]
    return differing + missing + surplus


def sha256_of_arrays(arrays: Mapping[str, np.ndarray]) -> str:
    """Return the SHA-256 of names and bytes of arrays, sorted by name, in hex."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(name.encode())
        digest.update(arrays[name].tobytes())
    return digest.hexdigest()


def sha256_of_tree(tree: Any) -> str:
    """Return 16 hex digits of the SHA-256 of paths and bytes of a pytree's arrays."""
    arrays = {name: np.ascontiguousarray(x) for name, x in named_leaves(tree).items()}
    return sha256_of_arrays(arrays)[:_SHORT_DIGITS]


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
        name: [list(leaf.shape), _crc_of_array(leaf)]
        for name, leaf in named_leaves(tree).items()
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
    for name, leaf in named_leaves(tree).items():
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
