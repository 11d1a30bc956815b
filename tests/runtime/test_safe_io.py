"""Atomic writes, and reads of damaged and hostile files."""

import errno
import json
import os
import zipfile
from pathlib import Path

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
    with pytest.raises(UserError, match="has 1099511627776 bytes, expected at most"):
        safe_io.read_json(tmp_path / "x.json")


def test_require_numbers(tmp_path):
    values = {"a": 1, "b": 0.5, "c": float("nan")}
    assert safe_io.require_numbers(values, of=tmp_path) is values
    for other in ("<b>", None, [1.0], {"x": 1}, True, 10**400):
        with pytest.raises(UserError, match=r"x\.json is damaged: d is .*a number"):
            safe_io.require_numbers({"a": 1, "d": other}, of=tmp_path / "x.json")


READERS = (
    safe_io.read_json,
    safe_io.read_text,
    lambda path: safe_io.read_arrays(path, {}),
    lambda path: safe_io.read_bytes(path, limit=10),
    lambda path: safe_io.require_file(path, limit=10),
)


@pytest.mark.parametrize("read", READERS)
def test_only_regular_files_are_read(read, tmp_path):
    """A FIFO without a writer and an endless device raise at once."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("/dev/zero")
    (tmp_path / "loop").symlink_to("loop")
    for path, message in (
        (tmp_path, "is a directory, expected a file"),
        (tmp_path / "missing", "does not exist"),
        (tmp_path / "fifo", "is not a regular file"),
        (tmp_path / "link", "is not a regular file"),
        (tmp_path / "loop", "cannot be read: Too many levels of symbolic links"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            read(path)
        assert str(path) in str(caught.value)


def test_files_are_read_up_to_a_limit(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"0123456789")
    (tmp_path / "link").symlink_to(path)
    assert safe_io.read_bytes(tmp_path / "link", limit=10) == b"0123456789"
    safe_io.require_file(path, limit=10)
    for read in (safe_io.read_bytes, safe_io.require_file):
        with pytest.raises(UserError, match="x has 10 bytes, expected at most 9"):
            read(path, limit=9)


def limit_of(path):
    return 5 if path.suffix == ".json" else 10


def test_all_files_of_a_directory_are_checked(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "back").symlink_to(tmp_path)
    (tmp_path / "a" / "broken").symlink_to("missing")
    (tmp_path / "a" / "b" / "x").write_bytes(bytes(10))
    safe_io.require_files(tmp_path, limit=limit_of)
    safe_io.require_files(tmp_path / "missing", limit=limit_of)
    with pytest.raises(UserError, match="x has 10 bytes, expected at most 9"):
        safe_io.require_files(tmp_path, limit=lambda path: 9)
    (tmp_path / "a" / "x.json").write_bytes(bytes(6))
    with pytest.raises(UserError, match=r"x\.json has 6 bytes, expected at most 5"):
        safe_io.require_files(tmp_path, limit=limit_of)
    os.remove(tmp_path / "a" / "x.json")
    os.mkfifo(tmp_path / "a" / "x.json")
    with pytest.raises(UserError, match=r"x\.json is not a regular file"):
        safe_io.require_files(tmp_path, limit=limit_of)


@pytest.mark.parametrize("function", ["stat", "iterdir"])
def test_directories_that_another_process_removes_are_ignored(
    tmp_path, monkeypatch, function
):
    (tmp_path / "removed").mkdir()
    original = getattr(Path, function)
    error = FileNotFoundError(errno.ENOENT, "No such file or directory")

    def fail(path, **kwargs):
        if path.name == "removed":
            raise error
        return original(path, **kwargs)

    monkeypatch.setattr(Path, function, fail)
    safe_io.require_files(tmp_path, limit=limit_of)
    error = PermissionError(errno.EACCES, "Permission denied")
    with pytest.raises(UserError, match="removed cannot be read: Permission denied"):
        safe_io.require_files(tmp_path, limit=limit_of)


def test_text_that_is_not_utf_8_is_read(tmp_path):
    (tmp_path / "x").write_bytes(b"a\xff\xc3\xa9")
    assert safe_io.read_text(tmp_path / "x") == "a\ufffdé"


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


WRITERS = {
    safe_io.write_bytes: b'{\n  "after": 1\n}\n',
    safe_io.write_json: {"after": 1},
}


@pytest.mark.parametrize("write", WRITERS)
def test_a_failed_write_keeps_the_previous_file(write, tmp_path, limited_file_sizes):
    path = tmp_path / "x.json"
    path.write_text("before")
    with (
        limited_file_sizes(),
        pytest.raises(UserError, match=r"cannot write .*x\.json: File too large"),
    ):
        write(path, WRITERS[write])
    assert os.listdir(tmp_path) == ["x.json"]
    assert path.read_text() == "before"


@pytest.mark.parametrize("write", WRITERS)
def test_a_write_never_follows_a_link(write, tmp_path):
    """Nor does it change a file that shares its name or its temporary name."""
    outside = tmp_path / "outside"
    outside.write_text("before")
    inside = tmp_path / "inside"
    inside.mkdir()
    path, temporary = inside / "x.json", inside / ".x.json.tmp"
    for link in (path.symlink_to, path.hardlink_to):
        for temporary_link in (temporary.symlink_to, temporary.hardlink_to):
            link(outside)
            temporary_link(outside)
            write(path, WRITERS[write])
            assert outside.read_text() == "before"
            assert os.listdir(inside) == ["x.json"]
            assert not path.is_symlink()
            assert path.read_bytes() == WRITERS[safe_io.write_bytes]
            path.unlink()
    temporary.symlink_to(tmp_path / "created")
    write(path, WRITERS[write])
    assert not (tmp_path / "created").exists()
