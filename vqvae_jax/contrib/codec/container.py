"""The file format of compressed codes.

    bytes
    2       magic, "VQ"
    1       version: 1 if all images have the model's size, otherwise 2
    3       start of the SHA-256 of everything that determines the probabilities: the
            model's fingerprint, the prior's arrays and options, the grid shape, K
    4       CRC-32 of all other bytes of the file, big-endian
    3       start of the SHA-256 of the codes and labels
    1 ...   4 * grids + how, as a varint: groups of 7 bits, lowest first; how is 0 for
            the uniform prior, 1 for a learned one, 2 for a learned one with labels.
            Version 1 has one grid of codes for each image
    ...     of version 2: the number of runs of images of one size, and of each run the
            number of images, their height and their width in pixels, as varints
    ...     bytes of the entropy coder

The header takes 14 bytes for up to 31 images. The CRC detects damage before decoding;
the hash of the codes detects wrong decoding, caused by another machine's arithmetic.
"""

import enum
import zlib
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from vqvae_jax.runtime.checksums import short_sha256
from vqvae_jax.runtime.errors import UserError, require

_MAGIC = b"VQ"
# Of images of the model's size, and of any.
_VERSIONS = _ONE_SIZE, _ANY_SIZE = 1, 2
# Limits a side of an image, and with it what a forged file may claim.
MAX_SIDE = 2**16
HASH_BYTES = 3
_CRC = 4
_FIXED = len(_MAGIC) + 1 + HASH_BYTES + _CRC + HASH_BYTES
_BITS = 7
# Limit on the groups of a varint: 63 bits, more than any count of images needs.
_MAX_GROUPS = 9

# For files with a valid CRC.
_INVALID_HEADER = "the file's header is invalid: compress the images again"


class How(enum.IntEnum):
    """The source of the probabilities."""

    UNIFORM = 0
    PRIOR = 1
    PRIOR_WITH_LABELS = 2


class Contents(NamedTuple):
    """The fields of a file.

    identity: `short_sha256` of everything that determines the probabilities.
    check: `hash_of_codes` of the codes and labels.
    grids: number of grids of codes.
    how: source of the probabilities.
    payload: bytes of the entropy coder.
    runs: of images of one size in pixels: their number and `(height, width)`. Empty if
      all have the model's size, and one grid each.
    """

    identity: bytes
    check: bytes
    grids: int
    how: How
    payload: bytes
    runs: tuple[tuple[int, tuple[int, int]], ...] = ()


def pack(contents: Contents) -> bytes:
    """Serialize the fields of a file."""
    version = _ANY_SIZE if contents.runs else _ONE_SIZE
    before = _MAGIC + bytes([version]) + contents.identity
    after = contents.check + _varint(4 * contents.grids + contents.how)
    if contents.runs:
        after += _varint(len(contents.runs))
        for count, (height, width) in contents.runs:
            after += _varint(count) + _varint(height) + _varint(width)
    after += contents.payload
    return before + zlib.crc32(before + after).to_bytes(_CRC) + after


def unpack(data: bytes) -> Contents:
    """Parse the bytes of a file.

    Raises:
      UserError: the data has another format or version, or is damaged.
    """
    require(
        data.startswith(_MAGIC),
        "not a file of compressed codes: expected it to start with VQ",
    )
    damaged = "the file is damaged, or its end is missing: copy it again"
    require(len(data) > _FIXED, damaged)
    version = data[len(_MAGIC)]
    require(
        version in _VERSIONS,
        f"the file has version {version} or is damaged; this program reads versions "
        f"{_ONE_SIZE} and {_ANY_SIZE}",
    )
    start = len(_MAGIC) + 1 + HASH_BYTES
    before, crc, after = data[:start], data[start : start + _CRC], data[start + _CRC :]
    require(zlib.crc32(before + after).to_bytes(_CRC) == crc, damaged)
    number, payload = _split_varint(after[HASH_BYTES:])
    grids, how = divmod(number, 4)
    require(how in tuple(How) and grids > 0, _INVALID_HEADER)
    runs: tuple = ()
    if version == _ANY_SIZE:
        runs, payload = _split_runs(payload)
    identity, check = before[-HASH_BYTES:], after[:HASH_BYTES]
    return Contents(identity, check, grids, How(how), payload, runs)


def hash_of_codes(
    codes: Int[np.ndarray, "N H W C"], labels: Int[np.ndarray, " N"] | None
) -> bytes:
    """Return the hash of codes and labels, independent of their integer type."""
    label_bytes = b"" if labels is None else labels.astype("<i4").tobytes()
    code_bytes = codes.astype("<i4").tobytes()
    return short_sha256(code_bytes, label_bytes, size=HASH_BYTES)


def _split_runs(data: bytes) -> tuple[tuple, bytes]:
    """Return the runs at the start of bytes, and the other bytes."""
    number, data = _split_varint(data)
    # A run takes three bytes or more.
    require(0 < number <= len(data) // 3, _INVALID_HEADER)
    runs = []
    for _ in range(number):
        count, data = _split_varint(data)
        height, data = _split_varint(data)
        width, data = _split_varint(data)
        sides = (height, width)
        is_valid = count > 0 and min(sides) > 0 and max(sides) <= MAX_SIDE
        require(is_valid, _INVALID_HEADER)
        runs.append((count, sides))
    return tuple(runs), data


def _varint(number: int) -> bytes:
    groups = []
    while number >= 2**_BITS:
        groups.append(number % 2**_BITS + 2**_BITS)
        number >>= _BITS
    return bytes([*groups, number])


def _split_varint(data: bytes) -> tuple[int, bytes]:
    number = 0
    for group, byte in enumerate(data[:_MAX_GROUPS]):
        number += byte % 2**_BITS << (_BITS * group)
        if byte < 2**_BITS:
            return number, data[group + 1 :]
    raise UserError(_INVALID_HEADER)
