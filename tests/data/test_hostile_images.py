"""Any file in a folder of images is read, or raises one line that names it."""

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
    """A small image of noise in a mode and a format of Pillow."""
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
    """A PNG of a few bytes whose header declares side x side pixels."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


def read(root, suffix: str, content: bytes) -> str:
    """Read a folder with one image; return the error message, "" if there is none."""
    file = root / "train" / "a" / f"x.{suffix}"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    try:
        splits = open_folder(str(root), image_size=8, channels=3)
        image = splits.sources["train"][0]["image"]
    except UserError as error:
        message = str(error)
    else:
        assert image.shape == (8, 8, 3)
        assert image.dtype == np.uint8
        return ""
    finally:
        file.unlink()
    assert str(file) in message
    return message


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder for one image at a time."""
    return tmp_path_factory.mktemp("images")


@pytest.mark.parametrize("suffix", IMAGES)
def test_all_modes_are_read(suffix, root):
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
def test_damaged_images_are_read_or_raise(root, suffix, number, flips, missing):
    choices = IMAGES[suffix]
    content = bytearray(choices[number % len(choices)])
    for position, bits in flips:
        # Half of the damage is in the header, where it has more effects.
        content[position % min(len(content), 200 if position % 2 else 10**9)] ^= bits
    message = read(root, suffix, bytes(content[: max(0, len(content) - missing)]))
    assert len(message.splitlines()) <= 1


@given(st.sampled_from(sorted(IMAGES)), st.binary(max_size=300))
@example("png", b"")
@example("jpg", b"\xff\xd8\xff\xd9")
@example("bmp", b"BM" + bytes(60))
def test_random_bytes_raise(root, suffix, content):
    message = read(root, suffix, content)
    assert message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize("side", [10_000, 60_000, 2**31 - 1])
def test_a_decompression_bomb_raises_before_it_is_decompressed(side, root):
    tracemalloc.start()
    message = read(root, "png", png_bomb(side))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "cannot be used" in message
    assert peak < 2**23


@pytest.mark.parametrize("name", ["a b", "ünï", "x..", "~", "$HOME", "<b>", "'; x"])
def test_any_printable_class_name_is_accepted(name, tmp_path):
    (tmp_path / "train" / name).mkdir(parents=True)
    (tmp_path / "train" / name / "0.png").write_bytes(IMAGES["png"][0])
    splits = open_folder(str(tmp_path), image_size=8, channels=3)
    assert splits.class_names == (name,)


@pytest.mark.parametrize("name", [b"a\nb", b"\xff\xfe", b"\x1b[2J"])
def test_a_class_name_that_is_not_printable_raises(name, tmp_path):
    (tmp_path / "train").mkdir()
    folder = bytes(tmp_path / "train") + b"/" + name
    os.mkdir(folder)
    with pytest.raises(UserError, match="which is not printable; rename it"):
        open_folder(str(tmp_path), image_size=8, channels=3)


def test_links_out_of_the_folder_are_followed_and_targets_unchanged(tmp_path):
    """Links to a class and to an image elsewhere, and a broken link."""
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
