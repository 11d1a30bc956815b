"""Any file in a folder of images is read, or raises one line that names it."""

import io
import os
import re
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import EpsImagePlugin, Image

from vqvae_jax.data import images
from vqvae_jax.data.folder import FolderSource, open_folder
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


def read(root, suffix: str, content: bytes, *, skip_corrupt: bool = False) -> str:
    """Read a folder with one image; return the error message, "" if there is none."""
    file = root / "train" / "a" / f"x.{suffix}"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    try:
        splits = open_folder(
            str(root), image_size=8, channels=3, skip_corrupt=skip_corrupt
        )
        image = splits.sources["train"][0]["image"]
    except UserError as error:
        message = str(error)
    else:
        assert image.shape == (8, 8, 3)
        assert image.dtype == np.uint8
        return ""
    finally:
        file.unlink()
    assert str(file.parent.parent if skip_corrupt else file) in message
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


def flipped(content: bytes, rng: np.random.Generator, *, bits: int) -> bytes:
    """Flip bits: of a PNG only in its pixels, under a valid checksum."""
    first, last = 8, len(content)
    if content.startswith(b"\x89PNG"):
        first = content.index(b"IDAT") + 4
        last = first + int.from_bytes(content[first - 8 : first - 4])
    damaged = bytearray(content)
    for position in rng.integers(first, last, bits):
        damaged[position] ^= 1 << rng.integers(8)
    if first > 8:
        checksum = zlib.crc32(damaged[first - 4 : last])
        damaged[last : last + 4] = struct.pack(">I", checksum)
    return bytes(damaged)


def strictly_loaded(content: bytes) -> np.ndarray | None:
    """Load an image with one call of Pillow's, which raises if it detects damage."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            return images.fit(image, image_size=8, channels=3)
    except Exception:
        return None


@pytest.mark.parametrize("bits", [1, 3])
@pytest.mark.parametrize("suffix", IMAGES)
@pytest.mark.filterwarnings("ignore")  # Pillow's, about damage outside of the pixels.
def test_flipped_bits_raise_or_are_skipped_if_pillow_detects_them(
    suffix, bits, tmp_path
):
    """Not one of hundreds of damaged files becomes black without an error."""
    rng, expected = np.random.default_rng(bits), []
    folder = tmp_path / "train" / "a"
    folder.mkdir(parents=True)
    (folder / f"000.{suffix}").write_bytes(IMAGES[suffix][0])
    for content in IMAGES[suffix] * (400 // len(IMAGES[suffix])):
        damaged = flipped(content, rng, bits=bits)
        file = folder / f"{len(expected) + 1:03}.{suffix}"
        file.write_bytes(damaged)
        expected.append(strictly_loaded(damaged))
        source = FolderSource([str(file)], [0], image_size=8, channels=3)
        if expected[-1] is None:
            with pytest.raises(UserError, match=rf"{file.name} cannot be decoded"):
                source[0]
        else:
            np.testing.assert_array_equal(source[0]["image"], expected[-1])
    readable = [image for image in expected if image is not None]
    # BMP has no redundancy outside of its header, and WebP little.
    refused = len(expected) - len(readable)
    assert refused > {"jpg": 20, "png": 100, "webp": 1, "bmp": 0}[suffix]
    splits = open_folder(str(tmp_path), image_size=8, channels=3, skip_corrupt=True)
    opened = [splits.sources["train"][i + 1]["image"] for i in range(len(readable))]
    np.testing.assert_array_equal(opened, readable)
    assert len(splits.sources["train"]) == len(readable) + 1


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("damage", ["cut", "overwritten"])
@pytest.mark.filterwarnings("ignore:skipped 1 of 1")
def test_damaged_pixels_behind_valid_checksums_of_a_png(root, interlaced, damage):
    """Refused with Pillow's reason when read, or skipped after decoding."""
    header = struct.pack(">IIBBBBB", 64, 64, 8, 0, 0, 0, interlaced)
    # In any order of rows, each begins with a valid filter, 0 ... 4.
    pixels = np.random.default_rng(0).integers(0, 5, 64 * 200, np.uint8).tobytes()
    stream = bytearray(zlib.compress(pixels))
    if damage == "cut":
        del stream[len(stream) // 3 :]
    else:
        stream[200:250] = bytes(50)
    content = b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(kind, bytes(part))
        for kind, part in [(b"IHDR", header), (b"IDAT", stream), (b"IEND", b"")]
    )
    assert strictly_loaded(content) is None
    message = read(root, "png", content)
    reason = "truncated" if damage == "cut" else "data stream"
    assert re.search(rf"x\.png cannot be decoded \(.*{reason}", message)
    message = read(root, "png", content, skip_corrupt=True)
    assert "has no image that can be read" in message


POSTSCRIPT = (
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
)


@pytest.mark.parametrize("suffix", IMAGES)
def test_postscript_is_not_executed(suffix, root, monkeypatch):
    started = []
    monkeypatch.setattr(
        EpsImagePlugin, "Ghostscript", lambda *_, **__: started.append(1)
    )
    message = read(root, suffix, POSTSCRIPT)
    assert "it is not a JPEG, PNG, WebP, BMP or GIF image" in message
    with pytest.raises(OSError, match="it is not a JPEG, PNG, WebP, BMP or GIF image"):
        images.decode(POSTSCRIPT, image_size=8, channels=3)
    assert not started


def test_the_first_frame_of_a_gif_is_read(root):
    """Some sets contain GIFs whose names end in .jpg."""
    red, blue = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))
    stream = io.BytesIO()
    red.save(stream, "GIF", save_all=True, append_images=[blue])
    assert read(root, "jpg", stream.getvalue()) == ""
    found = images.decode(stream.getvalue(), image_size=8, channels=3)
    np.testing.assert_array_equal(found, np.asarray(red))
    assert "truncated" in read(root, "jpg", encoded("L", "GIF")[:-100])


@pytest.mark.parametrize("form", ["TIFF", "PPM", "ICO", "PCX"])
def test_formats_that_are_not_promised_raise(form, root):
    assert "it is not a JPEG, PNG, WebP, BMP or GIF image" in read(
        root, "png", encoded("RGB", form)
    )


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
