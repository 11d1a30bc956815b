"""The bytes of a file: all of them count."""

import zlib

import numpy as np
import pytest

from vqvae_jax.contrib.codec import container
from vqvae_jax.contrib.codec.container import Contents, How
from vqvae_jax.runtime.errors import UserError


def contents(images=3, payload=b"payload", how=How.PRIOR_WITH_LABELS):
    return Contents(b"abc", b"xyz", images, how, payload)


@pytest.mark.parametrize("images", [1, 31, 32, 4095, 4096, 10**9])
@pytest.mark.parametrize("how", list(How))
def test_what_was_packed_comes_back(images, how):
    packed = container.pack(contents(images, how=how))
    assert container.unpack(packed) == contents(images, how=how)


@pytest.mark.parametrize(("images", "size"), [(31, 14), (32, 15), (4095, 15)])
def test_the_header_is_small(images, size):
    assert len(container.pack(contents(images, b""))) == size


def test_fields_are_where_the_docstring_says():
    packed = container.pack(contents(images=40))
    assert packed[:3] == b"VQ\x01"
    assert packed[3:6] == b"abc"
    assert packed[6:10] == zlib.crc32(packed[:6] + packed[10:]).to_bytes(4)
    assert packed[10:13] == b"xyz"
    # 4 * 40 + 2 = 162 = 34 + 1 * 128, the lower 7 bits first.
    assert packed[13:] == bytes([34 + 128, 1]) + b"payload"


def test_any_flipped_byte_is_refused():
    packed = container.pack(contents())
    for place in range(len(packed)):
        for flip in range(1, 256):
            damaged = bytearray(packed)
            damaged[place] ^= flip
            with pytest.raises(UserError, match=r"start with VQ|of version|is damaged"):
                container.unpack(bytes(damaged))


def test_any_other_length_is_refused():
    packed = container.pack(contents())
    for length in range(len(packed)):
        with pytest.raises(UserError, match=r"start with VQ|is damaged"):
            container.unpack(packed[:length])
    with pytest.raises(UserError, match="is damaged"):
        container.unpack(packed + b"\0")


def test_another_version_is_named():
    packed = bytearray(container.pack(contents()))
    packed[2] = 2
    with pytest.raises(UserError, match=r"of version 2, .* reads version 1"):
        container.unpack(bytes(packed))


@pytest.mark.parametrize(
    "after",
    [
        bytes([4 * 3 + 3]) + b"payload",  # No such `how`.
        bytes([200, 200]),  # The number has no end.
        b"\x80" * 10 + b"\1",  # Nor an end where a count could have it.
    ],
)
def test_a_right_crc_does_not_make_a_header(after):
    before, after = b"VQ\x01abc", b"xyz" + after
    crc = zlib.crc32(before + after).to_bytes(4)
    with pytest.raises(UserError, match="header is none that this program writes"):
        container.unpack(before + crc + after)


def test_hashes_tell_parts_apart():
    assert container.short_hash(b"ab", b"c") != container.short_hash(b"a", b"bc")
    codes = np.zeros((2, 1, 1, 1), np.int16)
    same = container.hash_of_codes(codes.astype(np.int64), None)
    assert container.hash_of_codes(codes, None) == same
    assert container.hash_of_codes(codes, np.zeros(2, np.int32)) != same
