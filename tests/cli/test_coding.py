"""encode, decode and reconstruct, against the model's own methods."""

import dataclasses
import re
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

import vqvae_jax
from vqvae_jax import registry
from vqvae_jax.data import images


def read_codes(folder):
    """Return the codes of the .npz files of a folder, sorted by name."""
    return np.stack([np.load(f)["codes"] for f in sorted(folder.rglob("*.npz"))])


@pytest.fixture
def codes(command, digits_file, photos, tmp_path):
    """The folder of `encode` for the photos."""
    out = tmp_path / "codes"
    found = command("encode", digits_file, photos, out, "--batch_size=2")
    assert found == (0, f"{out}: 5 files\n", "")
    return out


def test_codes_are_those_of_the_model(codes, finished_run, tiny_images):
    model, params = vqvae_jax.restore(finished_run)
    names = [p.relative_to(codes).as_posix() for p in sorted(codes.rglob("*.npz"))]
    assert names == ["3/0.npz", "3/1.npz", "7/2.npz", "7/3.npz", "7/4.npz"]
    np.testing.assert_array_equal(read_codes(codes), model.encode(params, tiny_images))
    assert len(np.unique(read_codes(codes))) > 1


def test_decoded_and_reconstructed_images_are_those_of_the_model(
    command, codes, digits_file, finished_run, tiny_images, photos, read_images
):
    model, params = vqvae_jax.restore(finished_run)
    expected = model.decode(params, model.encode(params, tiny_images))[..., 0]
    # Results of a pattern are named after the files alone.
    pattern = str(codes / "**" / "*.npz")
    for words in (
        ("decode", digits_file, pattern),
        ("reconstruct", digits_file, photos),
    ):
        out = codes.parent / words[0]
        assert command(*words, out, "--batch_size=3").code == 0
        np.testing.assert_array_equal(
            np.stack(list(read_images(out).values())), expected
        )


@pytest.mark.parametrize("force", [(), ("--force",)])
def test_inputs_are_never_replaced(error_of, digits_file, copied_photos, force):
    before = {path: path.read_bytes() for path in copied_photos.rglob("*.png")}
    words = ("reconstruct", digits_file, copied_photos, copied_photos, *force)
    assert "is an input and would be replaced: choose another" in error_of(*words)
    after = [path for path in copied_photos.rglob("*") if path.is_file()]
    assert {path: path.read_bytes() for path in after} == before


def test_an_existing_file_instead_of_the_folder_raises(
    error_of, digits_file, photos, tmp_path
):
    file = tmp_path / "file"
    file.write_text("mine")
    assert str(file) in error_of("encode", digits_file, photos, file, "--force")
    assert file.read_text() == "mine"


def test_larger_images_are_resized_on_demand(command, digits_file, tmp_path):
    Image.new("RGB", (40, 24), (200, 10, 10)).save(tmp_path / "a.jpg")
    words = ("encode", digits_file, tmp_path / "a.jpg", tmp_path / "out")
    assert command(*words, "--resize").code == 0
    assert read_codes(tmp_path / "out").shape == (1, 4, 4, 1)
    # The folder has the results of another command then.
    assert "resize: True, not False" in command(*words).err


def test_images_of_any_size_keep_it(command, digits_file, read_images, tmp_path):
    """Sides that the strides do not divide are cropped back; a batch has all sizes."""
    model, params = vqvae_jax.restore(digits_file)
    rng = np.random.default_rng(0)
    sizes = {"a": (24, 40), "b": (24, 40), "c": (11, 9), "d": (8, 8)}
    (tmp_path / "photos").mkdir()
    for name, size in sizes.items():
        noise = rng.integers(256, size=size).astype("uint8")
        Image.fromarray(noise).save(tmp_path / "photos" / f"{name}.png")
    codes, decoded, direct = (
        tmp_path / name for name in ("codes", "decoded", "direct")
    )
    for words in (
        ("encode", digits_file, tmp_path / "photos", codes),
        ("decode", digits_file, codes, decoded),
        ("reconstruct", digits_file, tmp_path / "photos", direct),
    ):
        assert command(*words).code == 0
    made, photos = read_images(decoded), read_images(tmp_path / "photos")
    assert [image.shape for image in made.values()] == list(sizes.values())
    for name, image in read_images(direct).items():
        np.testing.assert_array_equal(image, made[name])
        height, width = photos[name].shape
        padded = np.pad(photos[name], ((0, height % 2), (0, width % 2)), "edge")
        sized = dataclasses.replace(model, image_shape=(*padded.shape, 1))
        expected = sized.reconstruct(params, padded[None, ..., None])[0, ..., 0]
        expected = np.asarray(expected)[:height, :width].astype(int)
        assert np.abs(image - expected).max() <= 1
    with np.load(codes / "c.npz") as found:
        assert found["codes"].shape == (6, 5, 1)
        assert list(found["size"]) == [11, 9]


def test_codes_of_another_model_raise(error_of, codes, nudged_file):
    out = codes.parent / "out"
    words = ("decode", nudged_file, codes, out)
    assert "contains the codes of another model" in error_of(*words)
    assert not list(out.glob("*.png"))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 4, 1), "u1"), None),
        (np.full((4, 4, 1), 16, "u1"), "x.npz must be in 0 ... 15, got 16 ... 16"),
        (
            np.full((4, 4, 1), 2**32 + 3),
            "contains the code 4294967299, expected less than 2**31",
        ),
        (np.zeros((2, 7, 1), "u1"), None),
        (np.zeros((2, 4, 2), "u1"), "x.npz must have shape [h, w, 1]"),
        (np.zeros((0, 4, 1), "u1"), "there are no codes in"),
        (np.zeros((5000, 5000, 1), "u1"), "of 100000000 pixels, expected at most 8947"),
        (np.zeros((4, 4, 1)), "codes of type float64, expected integers"),
        (None, "has no array `codes`"),
    ],
)
def test_invalid_codes_raise(command, codes, digits_file, tmp_path, array, message):
    fingerprint = np.load(codes / "3" / "0.npz")["fingerprint"]
    arrays = {} if array is None else {"codes": array}
    np.savez(tmp_path / "x.npz", fingerprint=fingerprint, **arrays)
    found = command("decode", digits_file, tmp_path / "x.npz", tmp_path / "out")
    if message is None:
        assert found.code == 0
    else:
        assert found.code == 2
        assert message in found.err
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "size", [(9, 8), (8, 6), (8,), (-1, 8), (10**9, 8), (8.0, 8.0), (np.nan, 8)]
)
def test_a_size_that_is_not_that_of_the_codes_raises(
    error_of, codes, digits_file, tmp_path, size
):
    with np.load(codes / "3" / "0.npz") as found:
        np.savez(tmp_path / "x.npz", **found, size=np.array(size))
    line = error_of("decode", digits_file, tmp_path / "x.npz", tmp_path / "out")
    assert re.search("the size .*x.npz", line)


def test_damaged_files_are_named(error_of, codes, digits_file, tmp_path):
    content = (codes / "3" / "0.npz").read_bytes()
    (tmp_path / "x.npz").write_bytes(content[: len(content) // 2])
    line = error_of("decode", digits_file, tmp_path / "x.npz", tmp_path / "out")
    assert "x.npz is damaged" in line
    (tmp_path / "x.png").write_bytes(b"not an image")
    line = error_of("encode", digits_file, tmp_path / "x.png", tmp_path / "out")
    assert "1 of 1 images cannot be read" in line
    assert "x.png" in line


@pytest.mark.parametrize("name", ["reconstruct", "encode", "compress"])
def test_damage_behind_valid_checksums_is_reported_when_it_is_decoded(
    error_of, digits_file, photos, tmp_path, name
):
    """An interlaced PNG without the end of its pixels, whose chunks are complete."""
    if not registry.is_available(registry.COMMANDS[name].configure):
        pytest.skip("the command is not installed")

    def chunk(kind, content):
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    pixels = np.random.default_rng(0).integers(5, size=4_000).astype("u1").tobytes()
    cut = tmp_path / "cut.png"
    cut.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 50, 50, 8, 0, 0, 0, 1))
        + chunk(b"IDAT", zlib.compress(pixels)[:500])
        + chunk(b"IEND", b"")
    )
    line = error_of(name, digits_file, photos, cut, tmp_path / "out")
    assert f"{cut} cannot be decoded (image file is truncated" in line
    assert line.rstrip().endswith("replace or remove it")
    assert "workdir" not in line
    assert list(tmp_path.iterdir()) == [cut]


def test_finished_results_are_not_decoded_again(
    command, digits_file, copied_photos, tmp_path, monkeypatch
):
    words = ("encode", digits_file, copied_photos, tmp_path / "out", "--batch_size=2")
    assert command(*words).code == 0
    (tmp_path / "out" / "3" / "0.npz").unlink()
    loaded, load = [], images.load
    monkeypatch.setattr(images, "load", lambda file: loaded.append(file) or load(file))
    assert command(*words) == (0, f"{tmp_path / 'out'}: 5 files (4 existed)\n", "")
    assert len(loaded) == 1


def test_a_folder_whose_name_is_too_long_raises(error_of, digits_file, photos):
    line = error_of("reconstruct", digits_file, photos, "x" * 256)
    assert "cannot write" in line
    assert "File name too long" in line
