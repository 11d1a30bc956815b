"""The file that compressed codes are kept in, version 1.

    bytes
    2       magic, "VQ"
    1       version, 1
    3       of the SHA-256 of all that decides the probabilities: the model's
            fingerprint, the prior's arrays and options, the shape of a grid, K
    4       CRC-32 of all other bytes of the file, big-endian
    3       of the SHA-256 of the codes and labels that come out
    1 ...   4 * images + how, in groups of 7 bits, lowest first; how is 0 for the
            uniform prior, 1 for a learned one, 2 for a learned one given labels
    ...     the coder's bytes

Fourteen bytes up to 31 images. Damage is found before anything is decoded, by the CRC,
and codes that another machine's arithmetic decoded wrong are found by their own hash.
"""

import enum
import hashlib
import zlib
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from vqvae_jax.runtime.errors import UserError, require

_MAGIC = b"VQ"
_VERSION = 1
_HASH = 3
_CRC = 4
_FIXED = len(_MAGIC) + 1 + _HASH + _CRC + _HASH
_BITS = 7
# Groups of a number at most: 63 bits, which no count of images reaches.
_MAX_GROUPS = 9

# Of a file whose CRC is right.
_FOREIGN = "the file's header is none that this program writes: make the file again"


class How(enum.IntEnum):
    """What the probabilities came from."""

    UNIFORM = 0
    PRIOR = 1
    PRIOR_WITH_LABELS = 2


class Contents(NamedTuple):
    """What a file holds.

    identity: of all that decides the probabilities, from `short_hash`.
    check: of the codes and labels, from `hash_of_codes`.
    images: how many.
    how: what the probabilities came from.
    payload: the coder's bytes.
    """

    identity: bytes
    check: bytes
    images: int
    how: How
    payload: bytes


def pack(contents: Contents) -> bytes:
    """Return the bytes of a file."""
    before = _MAGIC + bytes([_VERSION]) + contents.identity
    after = contents.check + _varint(4 * contents.images + contents.how)
    after += contents.payload
    return before + zlib.crc32(before + after).to_bytes(_CRC) + after


def unpack(data: bytes) -> Contents:
    """Return what a file holds.

    Raises:
      UserError: it is no such file, of another version, or damaged.
    """
    require(
        data.startswith(_MAGIC),
        "this is no file of compressed codes; they start with VQ",
    )
    damaged = "the file is damaged, or its end is missing: copy it again"
    require(len(data) > _FIXED, damaged)
    version = data[len(_MAGIC)]
    require(
        version == _VERSION,
        f"the file is of version {version}, or damaged; this program reads version "
        f"{_VERSION}",
    )
    start = len(_MAGIC) + 1 + _HASH
    before, crc, after = data[:start], data[start : start + _CRC], data[start + _CRC :]
    require(zlib.crc32(before + after).to_bytes(_CRC) == crc, damaged)
    number, payload = _split_varint(after[_HASH:])
    images, how = divmod(number, 4)
    require(how in tuple(How), _FOREIGN)
    return Contents(before[-_HASH:], after[:_HASH], images, How(how), payload)


def short_hash(*parts: bytes) -> bytes:
    """Return the part of a SHA-256 of all parts in order that a file has room for."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8))
        digest.update(part)
    return digest.digest()[:_HASH]


def hash_of_codes(
    codes: Int[np.ndarray, "N H W C"], labels: Int[np.ndarray, " N"] | None
) -> bytes:
    """Return the hash of codes and labels, whatever integers they are kept in."""
    of_labels = b"" if labels is None else labels.astype("<i4").tobytes()
    return short_hash(codes.astype("<i4").tobytes(), of_labels)


def _varint(number: int) -> bytes:
    groups = []
    while number >= 2**_BITS:
        groups.append(number % 2**_BITS + 2**_BITS)
        number >>= _BITS
    return bytes([*groups, number])


def _split_varint(data: bytes) -> tuple[int, bytes]:
    number = 0
    for place, byte in enumerate(data[:_MAX_GROUPS]):
        number += byte % 2**_BITS << (_BITS * place)
        if byte < 2**_BITS:
            return number, data[place + 1 :]
    raise UserError(_FOREIGN)
