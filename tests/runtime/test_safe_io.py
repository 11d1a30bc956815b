"""Atomic writes, and reads of damaged and hostile files."""

import json
import os
import zipfile

import numpy as np
import pytest

from vqvae_jax.runtime import safe_io
from vqvae_jax.runtime.errors import UserError

SCHEMA = {"images": "u N 4 4", "labels": "i N"}


def arrays(n=3):
    return {"images": np.zeros((n, 4, 4), np.uint8), "labels": np.arange(n)}


def raw_npz(path, header: dict, content: bytes = b"") -> None:
    """Write an npz file whose only array has the given header."""
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("images.npy", "w") as file,
    ):
        np.lib.format.write_array_header_1_0(file, header)
        file.write(content)


def test_json_round_trip(tmp_path):
    values = {"a": [1, 2.5, None], "ü": {"b": True}}
    safe_io.write_json(tmp_path / "new" / "x.json", values)
    assert safe_io.read_json(tmp_path / "new" / "x.json") == values
    text = (tmp_path / "new" / "x.json").read_text()
    assert text.endswith("}\n")
    assert json.loads(text) == values
    assert os.listdir(tmp_path / "new") == ["x.json"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is damaged"),
        (b'{"a": 1', "is damaged"),
        (b"\xff\xfe{}", "is damaged"),
        (b"[1, 2]", "expected a JSON object"),
        (b"null", "expected a JSON object"),
        (b'{"a":' * 40 + b"1" + b"}" * 40, "more than 32 levels deep"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "is damaged"),
        (b'{"a": ' + b"1" * 5000 + b"}", "is damaged"),
    ],
)
def test_damaged_json_is_reported(content, message, tmp_path):
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        safe_io.read_json(path)
    assert str(path) in str(caught.value)


def test_huge_json_is_not_read(tmp_path):
    with (tmp_path / "x.json").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(UserError, match="it has 1099511627776 bytes, expected at most"):
        safe_io.read_json(tmp_path / "x.json")


def test_require_numbers(tmp_path):
    values = {"a": 1, "b": 0.5, "c": float("nan")}
    assert safe_io.require_numbers(values, of=tmp_path) is values
    for other in ("<b>", None, [1.0], {"x": 1}):
        with pytest.raises(UserError, match=r"x\.json is damaged: d is .*a number"):
            safe_io.require_numbers({"a": 1, "d": other}, of=tmp_path / "x.json")


@pytest.mark.parametrize(
    "read", [safe_io.read_json, lambda p: safe_io.read_arrays(p, {})]
)
def test_a_missing_file_or_a_directory_is_reported(read, tmp_path):
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(UserError, match="does not exist or is not a file"):
            read(path)


def test_arrays_round_trip(tmp_path):
    np.savez_compressed(tmp_path / "x.npz", **arrays(), more=np.float32(1))
    found = safe_io.read_arrays(tmp_path / "x.npz", SCHEMA)
    assert set(found) == {"images", "labels", "more"}
    np.testing.assert_array_equal(found["labels"], [0, 1, 2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": np.arange(4)}, r"labels is int64 \[4\], expected 'i N'"),
        ({"labels": np.zeros(3)}, r"labels is float64 \[3\]"),
        ({"images": np.zeros((3, 4, 5), np.uint8)}, r"images is uint8 \[3, 4, 5\]"),
        ({"images": np.zeros((3, 4), np.uint8)}, r"images is uint8 \[3, 4\]"),
    ],
)
def test_another_dtype_or_shape_is_reported(change, message, tmp_path):
    np.savez(tmp_path / "x.npz", **arrays() | change)
    with pytest.raises(UserError, match=message):
        safe_io.read_arrays(tmp_path / "x.npz", SCHEMA)


def test_a_missing_array_is_reported(tmp_path):
    np.savez(tmp_path / "x.npz", labels=np.arange(3))
    with pytest.raises(UserError, match="array images is missing; remove it"):
        safe_io.read_arrays(tmp_path / "x.npz", SCHEMA)


def test_truncation_and_flipped_bits_are_reported(tmp_path):
    """A flipped bit either raises or is in a byte that does not affect the arrays."""
    np.savez(tmp_path / "x.npz", **arrays())
    whole = (tmp_path / "x.npz").read_bytes()
    for end in range(0, len(whole), 7):
        (tmp_path / "cut.npz").write_bytes(whole[:end])
        with pytest.raises(UserError, match=r"is damaged"):
            safe_io.read_arrays(tmp_path / "cut.npz", SCHEMA)
    for position in range(0, len(whole), 7):
        flipped = bytearray(whole)
        flipped[position] ^= 0x10
        (tmp_path / "flipped.npz").write_bytes(flipped)
        try:
            found = safe_io.read_arrays(tmp_path / "flipped.npz", SCHEMA)
        except UserError:
            continue
        for name, expected in arrays().items():
            np.testing.assert_array_equal(found[name], expected)


def test_arrays_of_objects_are_not_unpickled(tmp_path):
    class Trap:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "executed"),))

    np.savez(tmp_path / "x.npz", images=np.array([Trap()], object))
    with pytest.raises(UserError, match="is not a plain array"):
        safe_io.read_arrays(tmp_path / "x.npz", {"images": "O N"})
    assert not (tmp_path / "executed").exists()


def test_a_header_of_a_huge_array_allocates_nothing(tmp_path):
    header = {"descr": "|u1", "fortran_order": False, "shape": (2**50,)}
    raw_npz(tmp_path / "x.npz", header)
    with pytest.raises(UserError, match="declares 1125899906842752 bytes and has 128"):
        safe_io.read_arrays(tmp_path / "x.npz", {"images": "u N"})


def test_a_negative_size_is_reported(tmp_path):
    header = {"descr": "|u1", "fortran_order": False, "shape": (-4, -4)}
    raw_npz(tmp_path / "x.npz", header, bytes(16))
    with pytest.raises(UserError, match="is not a plain array"):
        safe_io.read_arrays(tmp_path / "x.npz", {"images": "u N N"})


def test_an_archive_that_expands_too_much_is_rejected(tmp_path, monkeypatch):
    monkeypatch.setattr(safe_io, "_MAX_ARRAY_BYTES", 2**20)
    path = tmp_path / "x.npz"
    np.savez_compressed(path, images=np.zeros(2**21, np.uint8))
    assert path.stat().st_size < 2**12
    with pytest.raises(UserError, match="declares 2097280 bytes of arrays"):
        safe_io.read_arrays(path, {"images": "u N"})


@pytest.mark.parametrize("write", [safe_io.write_bytes, safe_io.write_json])
def test_a_failed_write_keeps_the_previous_file(write, tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    path.write_text("before")

    def full(self, content):
        with self.open("wb") as file:
            file.write(content[:1])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    content = b"after" if write is safe_io.write_bytes else {"after": 1}
    with pytest.raises(UserError, match=r"cannot write .*x\.json: No space left"):
        write(path, content)
    assert os.listdir(tmp_path) == ["x.json"]
    assert path.read_text() == "before"
