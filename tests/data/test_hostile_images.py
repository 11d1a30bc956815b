"""Any file in a folder of images is an image or told in one line that names it."""

import io
import os
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from vqvae_jax.data.folder import open_folder
from vqvae_jax.runtime.errors import UserError

NOISE = np.random.default_rng(0).integers(0, 256, (19, 23, 4), np.uint8)


def encoded(mode: str, form: str) -> bytes:
    """A small image of noise in one of Pillow's modes and formats."""
    if mode == "I;16":
        image = Image.fromarray(NOISE[..., 0].astype(np.uint16) * 257)
    else:
        image = Image.fromarray(NOISE, "RGBA").convert("RGB").convert(mode)
    stream = io.BytesIO()
    image.save(stream, form)
    return stream.getvalue()


IMAGES = {
    "jpg": [encoded("RGB", "JPEG"), encoded("CMYK", "JPEG"), encoded("L", "JPEG")],
    "png": [
        encoded("RGB", "PNG"),
        encoded("P", "PNG"),
        encoded("I;16", "PNG"),
        encoded("1", "PNG"),
        encoded("RGBA", "PNG"),
    ],
    "webp": [encoded("RGB", "WEBP"), encoded("RGBA", "WEBP")],
    "bmp": [encoded("RGB", "BMP"), encoded("P", "BMP")],
}


def chunk(kind: bytes, content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def png_bomb(side: int) -> bytes:
    """A PNG of a few bytes that claims side x side pixels."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


def read(root, suffix: str, content: bytes) -> str:
    """Read a folder with one image; return why it cannot be, "" if it can."""
    file = root / "train" / "a" / f"x.{suffix}"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    try:
        splits = open_folder(str(root), image_size=8, channels=3)
        image = splits.sources["train"][0]["image"]
    except UserError as error:
        told = str(error)
    else:
        assert image.shape == (8, 8, 3)
        assert image.dtype == np.uint8
        return ""
    finally:
        file.unlink()
    assert str(file) in told
    return told


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder for one image at a time."""
    return tmp_path_factory.mktemp("images")


@pytest.mark.parametrize("suffix", IMAGES)
def test_each_mode_is_read_as_it_is(suffix, root):
    for content in IMAGES[suffix]:
        assert read(root, suffix, content) == ""


@given(
    st.sampled_from(sorted(IMAGES)),
    st.integers(0, 4),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 255)), max_size=8),
    st.integers(0, 400),
)
@example("png", 0, [], 10_000)
@example("webp", 0, [(7, 255)], 0)
def test_flipped_and_truncated_ones_are_read_or_told(
    root, suffix, number, flips, missing
):
    choices = IMAGES[suffix]
    content = bytearray(choices[number % len(choices)])
    for place, bits in flips:
        # Damage in the header says more than damage in the pixels.
        content[place % min(len(content), 200 if place % 2 else 10**9)] ^= bits
    told = read(root, suffix, bytes(content[: max(0, len(content) - missing)]))
    assert len(told.splitlines()) <= 1


@given(st.sampled_from(sorted(IMAGES)), st.binary(max_size=300))
@example("png", b"")
@example("jpg", b"\xff\xd8\xff\xd9")
@example("bmp", b"BM" + bytes(60))
def test_other_bytes_are_told(root, suffix, content):
    told = read(root, suffix, content)
    assert told
    assert len(told.splitlines()) == 1


@pytest.mark.parametrize("side", [10_000, 60_000, 2**31 - 1])
def test_a_decompression_bomb_is_told_before_anything_is_unpacked(side, root):
    tracemalloc.start()
    told = read(root, "png", png_bomb(side))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "cannot be used" in told
    assert peak < 2**23


@pytest.mark.parametrize("name", ["a b", "ünï", "x..", "~", "$HOME", "<b>", "'; x"])
def test_any_printable_name_of_a_class_is_taken(name, tmp_path):
    (tmp_path / "train" / name).mkdir(parents=True)
    (tmp_path / "train" / name / "0.png").write_bytes(IMAGES["png"][0])
    splits = open_folder(str(tmp_path), image_size=8, channels=3)
    assert splits.class_names == (name,)


@pytest.mark.parametrize("name", [b"a\nb", b"\xff\xfe", b"\x1b[2J"])
def test_a_name_that_cannot_be_shown_is_told(name, tmp_path):
    (tmp_path / "train").mkdir()
    folder = bytes(tmp_path / "train") + b"/" + name
    os.mkdir(folder)
    with pytest.raises(UserError, match="which cannot be shown; rename it"):
        open_folder(str(tmp_path), image_size=8, channels=3)


def test_links_out_of_the_folder_are_read_and_never_written_through(tmp_path):
    """A class and an image that lie elsewhere, and a link to nothing."""
    elsewhere, train = tmp_path / "elsewhere", tmp_path / "data" / "train"
    elsewhere.mkdir()
    (elsewhere / "0.png").write_bytes(IMAGES["png"][0])
    (train / "own").mkdir(parents=True)
    (train / "own" / "1.png").symlink_to(elsewhere / "0.png")
    (train / "own" / "2.png").symlink_to(tmp_path / "nothing")
    (train / "linked").symlink_to(elsewhere)
    before = [(path, path.stat().st_mtime_ns) for path in elsewhere.iterdir()]
    splits = open_folder(str(train.parent), image_size=8, channels=3)
    source = splits.sources["train"]
    assert len(source) == 2
    np.testing.assert_array_equal(source[0]["image"], source[1]["image"])
    assert splits.class_names == ("linked", "own")
    assert [(path, path.stat().st_mtime_ns) for path in elsewhere.iterdir()] == before
