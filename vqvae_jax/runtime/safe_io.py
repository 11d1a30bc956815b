"""Files that runs leave: written whole or not at all, and read without trust.

A workdir may come from anyone. Nothing in it is run, unpickled or believed before it is
checked; what it makes this process allocate is bounded by what is on disk.
"""

import contextlib
import json
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vqvae_jax.runtime.errors import UserError, require

# A config has hundreds of bytes, the metadata of codes with 10 000 class names fewer
# than a million.
_MAX_JSON_BYTES = 2**26
_MAX_JSON_DEPTH = 32

# By an array's name.
Forms = Mapping[str, str]

# Arrays may be this large, or so many times as large as their file.
_MAX_ARRAY_BYTES = 2**30
_MAX_RATIO = 100


def read_json(path: Path) -> dict:
    """Read a JSON object.

    Raises:
      UserError: there is no such file, or it is damaged, huge or nested deeply.
    """
    with_reason = f"{path} is damaged: "
    require(path.is_file(), f"{path} does not exist, or is no file")
    size = path.stat().st_size
    require(size <= _MAX_JSON_BYTES, f"{with_reason}it has {size} bytes")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise UserError(f"{with_reason}{error}") from error
    require(isinstance(values, dict), f"{with_reason}it holds no JSON object")
    require(
        _is_flat(values, _MAX_JSON_DEPTH),
        f"{with_reason}it is nested more than {_MAX_JSON_DEPTH} levels deep",
    )
    return values


def require_numbers(values: dict, *, of: Path) -> dict:
    """Return what a JSON file holds, seen to be numbers.

    Raises:
      UserError: one of the values is none.
    """
    for name, value in values.items():
        require(
            isinstance(value, int | float),
            f"{of} is damaged: {name} is {str(value)[:50]!r}, expected a number",
        )
    return values


def read_arrays(path: Path, forms: Forms) -> dict[str, np.ndarray]:
    """Read an npz file of plain arrays.

    Args:
      path: of the file.
      forms: of the arrays that must be there: a kind as in `np.dtype.kind` and the
        dimensions, numbers or names that stand for one size each, as in "u N H W 3".

    Raises:
      UserError: there is no such file, it is damaged or holds more than arrays, or an
        array is missing or of another kind or shape.
    """
    require(path.is_file(), f"{path} does not exist, or is no file")
    try:
        _require_plain(path)
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except UserError:
        raise
    except Exception as error:  # A dozen kinds, by what is damaged.
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{path} is damaged: {reason}; remove it") from error
    sizes: dict[str, int] = {}
    for name, form in forms.items():
        require(name in arrays, f"{path} is damaged: it has no array {name}; remove it")
        require(
            _has_form(arrays[name], form, sizes),
            f"{path} is damaged: {name} is {arrays[name].dtype} "
            f"{list(arrays[name].shape)}, expected {form!r}; remove it",
        )
    return arrays


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write a JSON file, whole or not at all.

    Raises:
      UserError: the disk is full or the like.
    """
    write_bytes(path, (json.dumps(values, indent=2) + "\n").encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all.

    Raises:
      UserError: the disk is full or the like.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        # What cannot be written cannot always be removed.
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise UserError(f"cannot write {path}: {error.strerror}") from error


def _is_flat(value: Any, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return True
    if levels == 0:
        return False
    inside = value.values() if isinstance(value, dict) else value
    return all(_is_flat(each, levels - 1) for each in inside)


def _require_plain(path: Path) -> None:
    """See that the headers of an npz file claim nothing that is not there.

    NumPy allocates what a header claims before it reads.
    """
    limit = max(_MAX_ARRAY_BYTES, _MAX_RATIO * path.stat().st_size)
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        total = sum(member.file_size for member in members)
        require(
            total <= limit,
            f"{path} claims {total} bytes of arrays, of {path.stat().st_size} on disk: "
            "remove it",
        )
        for member in members:
            with archive.open(member) as file:
                version = np.lib.format.read_magic(file)
                read_header = {
                    (1, 0): np.lib.format.read_array_header_1_0,
                    (2, 0): np.lib.format.read_array_header_2_0,
                }[version]
                shape, _, dtype = read_header(file)
                claimed = math.prod(shape) * dtype.itemsize + file.tell()
            require(
                not dtype.hasobject and min(shape, default=0) >= 0,
                f"{path} is damaged: {member.filename} holds no plain array; remove it",
            )
            require(
                claimed == member.file_size,
                f"{path} is damaged: {member.filename} claims {claimed} bytes and has "
                f"{member.file_size}; remove it",
            )


def _has_form(array: np.ndarray, form: str, sizes: dict[str, int]) -> bool:
    kind, *dimensions = form.split()
    if array.dtype.kind != kind or array.ndim != len(dimensions):
        return False
    return all(
        size == (int(name) if name.isdigit() else sizes.setdefault(name, size))
        for name, size in zip(dimensions, array.shape, strict=True)
    )
