"""The file format: round trips, layout, and detection of damage."""

import zlib

import numpy as np
import pytest

from vqvae_jax.contrib.codec import container
from vqvae_jax.contrib.codec.container import Contents, How
from vqvae_jax.runtime import checksums
from vqvae_jax.runtime.errors import UserError


def contents(images=3, payload=b"payload", how=How.PRIOR_WITH_LABELS):
    return Contents(b"abc", b"xyz", images, how, payload)


@pytest.mark.parametrize("images", [1, 31, 32, 4095, 4096, 10**9])
@pytest.mark.parametrize("how", list(How))
def test_round_trip(images, how):
    packed = container.pack(contents(images, how=how))
    assert container.unpack(packed) == contents(images, how=how)


@pytest.mark.parametrize(("images", "size"), [(31, 14), (32, 15), (4095, 15)])
def test_header_size(images, size):
    assert len(container.pack(contents(images, b""))) == size


def test_layout_matches_the_docstring():
    packed = container.pack(contents(images=40))
    assert packed[:3] == b"VQ\x01"
    assert packed[3:6] == b"abc"
    assert packed[6:10] == zlib.crc32(packed[:6] + packed[10:]).to_bytes(4)
    assert packed[10:13] == b"xyz"
    # 4 * 40 + 2 = 162 = 34 + 1 * 128, the lower 7 bits first.
    assert packed[13:] == bytes([34 + 128, 1]) + b"payload"


RUNS = ((2, (12, 8)), (1, (300, 1)))


def test_sizes_follow_the_count_in_version_2():
    packed = container.pack(contents()._replace(runs=RUNS))
    assert packed[:3] == b"VQ\x02"
    assert container.unpack(packed) == contents()._replace(runs=RUNS)
    # 300 = 44 + 2 * 128.
    sizes = bytes([2, 2, 12, 8, 1, 44 + 128, 2, 1])
    assert packed[13:] == bytes([4 * 3 + 2]) + sizes + b"payload"


@pytest.mark.parametrize(
    "sizes",
    [
        bytes([0]),  # No runs.
        bytes([100, 1, 1, 1]),  # More than there are bytes for.
        bytes([1, 0, 1, 1]),  # No images.
        bytes([1, 1, 0, 1]),  # No rows.
        bytes([1, 1, 1, 129, 128, 4]),  # 65 537 columns.
        bytes([2, 1, 1, 1, 1, 1, 128]),  # The end is missing.
    ],
)
def test_invalid_sizes_with_a_valid_crc_raise(sizes):
    before, after = b"VQ\x02abc", b"xyz" + bytes([4 * 3 + 1]) + sizes
    crc = zlib.crc32(before + after).to_bytes(4)
    with pytest.raises(UserError, match="header is invalid: compress the images again"):
        container.unpack(before + crc + after)


def test_changed_bytes_raise():
    packed = container.pack(contents())
    for index in range(len(packed)):
        for flip in range(1, 256):
            damaged = bytearray(packed)
            damaged[index] ^= flip
            with pytest.raises(
                UserError, match=r"start with VQ|has version|is damaged"
            ):
                container.unpack(bytes(damaged))


def test_changed_lengths_raise():
    packed = container.pack(contents())
    for length in range(len(packed)):
        with pytest.raises(UserError, match=r"start with VQ|is damaged"):
            container.unpack(packed[:length])
    with pytest.raises(UserError, match="is damaged"):
        container.unpack(packed + b"\0")


def test_other_versions_raise():
    packed = bytearray(container.pack(contents()))
    packed[2] = 3
    with pytest.raises(UserError, match=r"has version 3 .* reads versions 1 and 2"):
        container.unpack(bytes(packed))


@pytest.mark.parametrize(
    "after",
    [
        bytes([4 * 3 + 3]) + b"payload",  # Invalid `how`.
        bytes([4 * 0 + 1]) + b"payload",  # No images.
        bytes([200, 200]),  # Unterminated varint.
        b"\x80" * 10 + b"\1",  # Varint with too many groups.
    ],
)
def test_invalid_headers_with_a_valid_crc_raise(after):
    before, after = b"VQ\x01abc", b"xyz" + after
    crc = zlib.crc32(before + after).to_bytes(4)
    with pytest.raises(UserError, match="header is invalid: compress the images again"):
        container.unpack(before + crc + after)


def short_hash(*parts):
    return checksums.short_sha256(*parts, size=container.HASH_BYTES)


def test_hashes_depend_on_part_boundaries_and_not_on_dtypes():
    assert short_hash(b"ab", b"c") != short_hash(b"a", b"bc")
    codes = np.zeros((2, 1, 1, 1), np.int16)
    same = container.hash_of_codes(codes.astype(np.int64), None)
    assert container.hash_of_codes(codes, None) == same
    assert container.hash_of_codes(codes, np.zeros(2, np.int32)) != same
