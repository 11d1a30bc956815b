"""Checksums of arrays: the same for the same bytes, other for any other byte."""

import zlib

import jax.numpy as jnp
import numpy as np
import pytest

from vqvae_jax.runtime import checksums


def tree():
    return {
        "w": jnp.arange(12.0).reshape(3, 4),
        "half": jnp.ones((2,), jnp.bfloat16),
        "nested": [jnp.int32(7), jnp.zeros((0, 3))],
    }


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


def test_any_flipped_bit_is_found():
    record = checksums.record_of(tree())
    for position in range(12 * 32):
        raw = bytearray(np.arange(12, dtype="<f4").tobytes())
        raw[position // 8] ^= 1 << position % 8
        w = np.frombuffer(raw, "<f4").reshape(3, 4)
        with pytest.raises(
            checksums.DamagedError, match=r"^w is not as it was written"
        ):
            checksums.require_intact(tree() | {"w": w}, record)


def test_negative_zero_is_not_zero():
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
def test_a_damaged_record_is_found(change):
    record = checksums.record_of(tree())
    change(record)
    with pytest.raises(checksums.DamagedError, match="its record of checksums"):
        checksums.shapes_in(record)


@pytest.mark.parametrize("record", [None, 3, [], "arrays"])
def test_what_is_no_record_is_found(record):
    with pytest.raises(checksums.DamagedError, match="its record of checksums"):
        checksums.shapes_in(record)


def test_the_place_in_the_data():
    place = {"next_batch": 2, "seed": 0}
    checksums.require_same({"seed": 0, "next_batch": 2}, checksums.checksum(place))
    with pytest.raises(checksums.DamagedError, match="place in the data"):
        checksums.require_same({"seed": 0, "next_batch": 6}, checksums.checksum(place))
