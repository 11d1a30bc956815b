"""Atomic writes, and reads that do not trust the file.

A workdir may come from anyone. Nothing in it is executed or unpickled, every value is
checked before use, and the memory allocated is bounded by the size on disk. Only
regular files are read, up to a limit: reading a FIFO or a device may never end.
"""

import contextlib
import io
import json
import math
import os
import stat
import sys
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from vqvae_jax.runtime.errors import UserError, one_line, require

# A config takes hundreds of bytes, the metadata of codes with 10 000 class names less
# than a million.
MAX_JSON_BYTES = 2**26
_MAX_JSON_DEPTH = 32
_MAX_TEXT_BYTES = 2**28
_MAX_NPZ_BYTES = 2**33

# Array name -> kind and dimensions, as `read_arrays` describes.
Schema = Mapping[str, str]

# Arrays may take this many bytes, or this many times the size of their file.
_MAX_ARRAY_BYTES = 2**30
_MAX_RATIO = 100


def open_file(path: Path, *, limit: int) -> BinaryIO:
    """Open a regular file for reading.

    Args:
      path: of the file, or of a link to it.
      limit: of its size in bytes.

    Raises:
      UserError: the file is missing, larger, or unreadable, or is a directory, a FIFO
        or a device.
    """
    try:
        # Without O_NONBLOCK, opening a FIFO waits for a writer.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    try:
        _require_regular(path, os.fstat(descriptor), limit=limit)
    except UserError:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def read_bytes(path: Path, *, limit: int) -> bytes:
    """Read a regular file.

    Args:
      path: of the file.
      limit: of its size in bytes.

    Raises:
      UserError: as `open_file`, or reading fails.
    """
    with open_file(path, limit=limit) as file:
        try:
            # Another process may append to it.
            return file.read(os.fstat(file.fileno()).st_size)
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}") from error


def read_text(path: Path, *, limit: int = _MAX_TEXT_BYTES) -> str:
    """Read a regular file of UTF-8; bytes that are not become U+FFFD.

    Raises:
      UserError: as `read_bytes`.
    """
    return read_bytes(path, limit=limit).decode(errors="replace")


def require_file(path: Path, *, limit: int) -> None:
    """Raise UserError as `open_file` would, before a library opens the file itself."""
    open_file(path, limit=limit).close()


def require_files(directory: Path, *, limit: Callable[[Path], int]) -> None:
    """Check all files under a directory before a library reads it.

    Files are not opened, which would be slow on a network drive.

    Args:
      directory: may be missing; another process may remove files.
      limit: returns the largest size of a file in bytes.

    Raises:
      UserError: a file is a FIFO or a device, or larger than its limit, or a directory
        cannot be read.
    """
    seen, pending = set(), [Path(directory)]
    while pending:
        path = pending.pop()
        try:
            status = path.stat()
            # A link may lead back.
            is_new = (status.st_dev, status.st_ino) not in seen
            if stat.S_ISDIR(status.st_mode) and is_new:
                seen.add((status.st_dev, status.st_ino))
                pending += path.iterdir()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}") from error
        if not stat.S_ISDIR(status.st_mode):
            _require_regular(path, status, limit=limit(path))


def read_json(path: Path) -> dict:
    """Read a JSON object.

    Raises:
      UserError: the file is missing, damaged, too large or nested too deeply.
    """
    content = read_bytes(path, limit=MAX_JSON_BYTES)
    damaged = f"{path} is damaged: "
    try:
        values = json.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{damaged}{error}") from error
    require(isinstance(values, dict), f"{damaged}expected a JSON object")
    require(
        _is_within_depth(values, _MAX_JSON_DEPTH),
        f"{damaged}it is nested more than {_MAX_JSON_DEPTH} levels deep",
    )
    return values


def is_number(value: Any) -> bool:
    """Return whether a JSON value is a number that a float can hold."""
    if isinstance(value, float):
        return True
    return type(value) is int and abs(value) <= sys.float_info.max


def require_numbers(values: dict, *, of: Path) -> dict:
    """Return the values of JSON file `of` if all are numbers.

    Raises:
      UserError: a value is not a number, or larger than a float can hold.
    """
    for name, value in values.items():
        require(
            is_number(value),
            f"{of} is damaged: {name} is {str(value)[:50]!r}, expected a number",
        )
    return values


def read_arrays(path: Path, schema: Schema) -> dict[str, np.ndarray]:
    """Read an npz file of plain arrays.

    Args:
      path: of the file.
      schema: the required arrays by name. Each is described by its kind, as in
        `np.dtype.kind`, and its dimensions: numbers, or names that stand for one size
        throughout the file, as in "u N H W 3".

    Raises:
      UserError: the file is missing, damaged or contains objects, or an array is
        missing or has another kind or shape.
    """
    with open_file(path, limit=_MAX_NPZ_BYTES) as file:
        try:
            _require_plain(path, file)
            file.seek(0)
            with np.load(file, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
        except UserError:
            raise
        except Exception as error:  # A dozen types, depending on the damage.
            reason = one_line(error, limit=200)
            raise UserError(f"{path} is damaged: {reason}; remove it") from error
    sizes: dict[str, int] = {}
    for name, expected in schema.items():
        require(
            name in arrays, f"{path} is damaged: array {name} is missing; remove it"
        )
        require(
            _matches(arrays[name], expected, sizes),
            f"{path} is damaged: {name} is {arrays[name].dtype} "
            f"{list(arrays[name].shape)}, expected {expected!r}; remove it",
        )
    return arrays


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write a JSON file atomically.

    Raises:
      UserError: writing fails, for example because the disk is full.
    """
    write_bytes(path, (json.dumps(values, indent=2) + "\n").encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically.

    The temporary file is new: a link in its place, which could lead out of the
    directory, is removed, as is the rest of an interrupted write. Of several processes,
    only one may write a path at a time.

    Raises:
      UserError: writing fails, for example because the disk is full.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        with temporary.open("xb") as file:
            file.write(content)
        temporary.replace(path)
    except OSError as error:
        # Removing the temporary file may fail too.
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise UserError(f"cannot write {path}: {error.strerror}") from error


def remove_empty(directories: Iterable[Path]) -> None:
    """Remove directories, inner ones first, unless they have contents."""
    for path in directories:
        with contextlib.suppress(OSError):
            path.rmdir()


def npz(**arrays: Any) -> bytes:
    """Return an npz file of arrays."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def _require_regular(path: Path, status: os.stat_result, *, limit: int) -> None:
    """Raise UserError unless a path is a regular file of at most `limit` bytes."""
    is_directory = stat.S_ISDIR(status.st_mode)
    require(not is_directory, f"{path} is a directory, expected a file")
    require(stat.S_ISREG(status.st_mode), f"{path} is not a regular file")
    require(
        status.st_size <= limit,
        f"{path} has {status.st_size} bytes, expected at most {limit}",
    )


def _is_within_depth(value: Any, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return True
    if levels == 0:
        return False
    children = value.values() if isinstance(value, dict) else value
    return all(_is_within_depth(child, levels - 1) for child in children)


def _require_plain(path: Path, file: BinaryIO) -> None:
    """Raise UserError unless the headers of an npz file agree with its contents.

    NumPy allocates the size that a header declares before it reads the data.
    """
    size = os.fstat(file.fileno()).st_size
    limit = max(_MAX_ARRAY_BYTES, _MAX_RATIO * size)
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        total = sum(member.file_size for member in members)
        require(
            total <= limit,
            f"{path} is damaged: it declares {total} bytes of arrays and has "
            f"{size} bytes; remove it",
        )
        for member in members:
            with archive.open(member) as stream:
                version = np.lib.format.read_magic(stream)
                read_header = {
                    (1, 0): np.lib.format.read_array_header_1_0,
                    (2, 0): np.lib.format.read_array_header_2_0,
                }[version]
                shape, _, dtype = read_header(stream)
                declared = math.prod(shape) * dtype.itemsize + stream.tell()
            require(
                not dtype.hasobject and min(shape, default=0) >= 0,
                f"{path} is damaged: {member.filename} is not a plain array; remove it",
            )
            require(
                declared == member.file_size,
                f"{path} is damaged: {member.filename} declares {declared} bytes and "
                f"has {member.file_size}; remove it",
            )


def _matches(array: np.ndarray, expected: str, sizes: dict[str, int]) -> bool:
    """Compare kind and dimensions; add the named sizes of the array to `sizes`."""
    kind, *dimensions = expected.split()
    if array.dtype.kind != kind or array.ndim != len(dimensions):
        return False
    return all(
        size == (int(name) if name.isdigit() else sizes.setdefault(name, size))
        for name, size in zip(dimensions, array.shape, strict=True)
    )
