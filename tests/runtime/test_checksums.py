"""Hashes against hashlib and zlib; any changed bit is detected. Shapes of pytrees."""

import hashlib
import zlib
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

from vqvae_jax.runtime import checksums
from vqvae_jax.runtime.errors import UserError


def tree():
    return {
        "w": jnp.arange(12.0).reshape(3, 4),
        "half": jnp.ones((2,), jnp.bfloat16),
        "nested": [jnp.int32(7), jnp.zeros((0, 3))],
    }


def test_sha256_of_arrays_covers_sorted_names_and_bytes():
    arrays = {
        "b": np.array([[0, 1], [2, 3]], np.int16),
        "a/kernel": np.array([1.5, -0.0], np.float32),
    }
    content = b"a/kernel\0\0\xc0\x3f\0\0\0\x80" + b"b\0\0\1\0\2\0\3\0"
    expected = hashlib.sha256(content).hexdigest()
    assert checksums.sha256_of_arrays(arrays) == expected
    assert checksums.sha256_of_arrays(dict(reversed(arrays.items()))) == expected
    assert checksums.sha256_of_arrays({"c": arrays["b"]}) != expected
    assert checksums.sha256_of_arrays({}) == hashlib.sha256().hexdigest()


def test_sha256_of_arrays_reads_transposed_arrays_in_row_order():
    array = np.arange(6, dtype="<i4").reshape(2, 3)
    found = checksums.sha256_of_arrays({"x": array.T})
    assert found == hashlib.sha256(b"x" + array.T.copy().data).hexdigest()


def test_sha256_of_tree_covers_paths_and_bytes():
    tree = {"b": [jnp.ones((2,), jnp.bfloat16)], "a": np.zeros(3, "<f4")}
    arrays = {"a": tree["a"], "b/0": np.asarray(tree["b"][0])}
    expected = checksums.sha256_of_arrays(arrays)[:16]
    assert checksums.sha256_of_tree(tree) == expected
    assert checksums.sha256_of_tree(tree | {"c": tree["a"]}) != expected


def test_sha256_of_leaves_covers_bytes_in_order():
    leaves = [jnp.ones((2,), jnp.bfloat16), np.int32(7), np.zeros((0, 3))]
    expected = hashlib.sha256(b"\x80\x3f\x80\x3f" + b"\7\0\0\0").hexdigest()[:16]
    assert checksums.sha256_of_leaves(*leaves) == expected
    assert checksums.sha256_of_leaves(*reversed(leaves)) != expected
    assert checksums.sha256_of_leaves() == hashlib.sha256().hexdigest()[:16]


@pytest.mark.parametrize("data", [b"", b"VQ\0\xff"])
def test_sha256_of_bytes_has_16_digits(data):
    found = checksums.sha256_of_bytes(data)
    assert found == hashlib.sha256(data).hexdigest()[:16]
    assert len(found) == 16


@pytest.mark.parametrize("size", [3, 32])
def test_short_sha256_covers_the_length_of_each_part(size):
    content = b"\0\0\0\0\0\0\0\2ab" + bytes(8) + b"\0\0\0\0\0\0\1\0" + b"c" * 256
    found = checksums.short_sha256(b"ab", b"", b"c" * 256, size=size)
    assert found == hashlib.sha256(content).digest()[:size]
    found = checksums.short_sha256(b"a", b"b", b"c" * 256, size=size)
    assert found != hashlib.sha256(content).digest()[:size]


def test_a_record_has_the_shape_and_the_crc_of_every_array():
    record = checksums.record_of(tree())
    w = np.arange(12, dtype="<f4").tobytes()
    assert record["arrays"] == {
        "half": [[2], zlib.crc32(b"\x80\x3f" * 2)],
        "nested/0": [[], zlib.crc32(b"\x07\0\0\0")],
        "nested/1": [[0, 3], 0],
        "w": [[3, 4], zlib.crc32(w)],
    }
    assert checksums.shapes_in(record)["w"] == (3, 4)
    checksums.require_intact(tree(), record)


def test_any_flipped_bit_is_detected():
    record = checksums.record_of(tree())
    for position in range(12 * 32):
        raw = bytearray(np.arange(12, dtype="<f4").tobytes())
        raw[position // 8] ^= 1 << position % 8
        w = np.frombuffer(raw, "<f4").reshape(3, 4)
        with pytest.raises(
            checksums.DamagedError, match=r"^w differs from what was written"
        ):
            checksums.require_intact(tree() | {"w": w}, record)


def test_negative_zero_differs_from_zero():
    record = checksums.record_of({"w": jnp.zeros(3)})
    with pytest.raises(checksums.DamagedError):
        checksums.require_intact({"w": -jnp.zeros(3)}, record)


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record["arrays"].pop("w"),
        lambda record: record["arrays"]["w"][0].append(1),
        lambda record: record.update(checksum=0),
        lambda record: record.pop("checksum"),
        lambda record: record.update(more=1),
    ],
)
def test_a_damaged_record_is_detected(change):
    record = checksums.record_of(tree())
    change(record)
    with pytest.raises(checksums.DamagedError, match="the checksum record"):
        checksums.shapes_in(record)


@pytest.mark.parametrize("record", [None, 3, [], "arrays"])
def test_a_record_of_another_type_is_rejected(record):
    with pytest.raises(checksums.DamagedError, match="the checksum record"):
        checksums.shapes_in(record)


def test_a_changed_iterator_state_is_detected():
    expected = checksums.checksum({"next_batch": 2, "seed": 0})
    checksums.require_same({"seed": 0, "next_batch": 2}, expected)
    with pytest.raises(checksums.DamagedError, match="the data iterator's state"):
        checksums.require_same({"seed": 0, "next_batch": 6}, expected)


class Pair(NamedTuple):
    w: np.ndarray
    rest: tuple


def test_paths_are_the_same_for_structs_and_for_dicts():
    """On disk a struct becomes a dict, and a tuple a list."""
    table, scalar = np.zeros((2, 3)), np.zeros(())
    in_memory = {"net": Pair(table, ({}, scalar, None))}
    on_disk = {"net": {"w": table, "rest": [{}, scalar, None]}}
    expected = {"net/w": (2, 3), "net/rest/1": ()}
    assert checksums.shapes_of(in_memory) == checksums.shapes_of(on_disk) == expected


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (
            {"a/w": (1, 5, 64), "b": (3,)},
            r"a/w has shape \(1, 5, 64\) in the checkpoint, expected \(1, 4, 64\): the",
        ),
        ({"a/w": (1, 4, 64)}, r"b of shape \(3,\) is missing in the checkpoint: the"),
        (
            {"a/w": (1, 4, 64), "b": (3,), "c": (7,)},
            r"c of shape \(7,\) in the checkpoint is not expected: the",
        ),
        (
            {"a/w": (1, 5, 64), "c": (7,)},
            r"a/w has shape .*, expected \(1, 4, 64\), and 2 more differ: the",
        ),
    ],
)
def test_the_first_difference_is_reported(stored, message):
    expected = {"a/w": (1, 4, 64), "b": (3,)}
    with pytest.raises(UserError, match=f"^runs/x: {message} model's sizes differ"):
        checksums.require_same_shapes(stored, expected, where="runs/x")
    checksums.require_same_shapes(
        expected, dict(reversed(expected.items())), where="runs/x"
    )
