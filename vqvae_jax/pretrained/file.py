"""One portable safetensors file with every array of a trained model and its metadata.

Arrays are named by the stage that trained them and their path in its params, as
"vqvae/encoder/params/...". The header has `format` "vqvae_jax", `version`, `about`, the
metadata as JSON, and `sha256`, JSON with a hash of the arrays of each stage.
"""

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from vqvae_jax.options import shown
from vqvae_jax.pretrained.metadata import Metadata, from_json, to_json
from vqvae_jax.runtime.checksums import (
    named_leaves,
    require_same_shapes,
    sha256_of_arrays,
    shapes_of,
)
from vqvae_jax.runtime.errors import UserError, one_line, require
from vqvae_jax.runtime.safe_io import require_file, write_bytes

_FORMAT, _VERSION = "vqvae_jax", "2"
_MAX_BYTES = 2**37
# Types that arrays of a model may be stored as; those of half precision are widened.
_DTYPES = {"float32": ("F32", "F16"), "int32": ("I32",)}
# Raised for headers and arrays that `write` did not write.
_DAMAGE = (UserError, OSError, KeyError, ValueError, TypeError, RecursionError)


def write(path: Path, metadata: Metadata, params: Mapping[str, Any]) -> None:
    """Write a model and its second stage atomically.

    Args:
      path: of the file.
      metadata: of the model.
      params: of each stage that the metadata name.

    Raises:
      UserError: the file cannot be written.
    """
    arrays = {
        stage: {name: np.ascontiguousarray(x) for name, x in named_leaves(tree).items()}
        for stage, tree in params.items()
    }
    hashes = {stage: sha256_of_arrays(x) for stage, x in arrays.items()}
    header = {
        "format": _FORMAT,
        "version": _VERSION,
        "about": to_json(metadata),
        "sha256": json.dumps(hashes),
    }
    flat = {
        f"{stage}/{name}": array
        for stage, of_stage in arrays.items()
        for name, array in of_stage.items()
    }
    write_bytes(path, safetensors.numpy.save(flat, header))


class File:
    """A file of `write`, read on demand; nothing in it is executed.

    Attributes:
      metadata: of the model in it.
      damage: "", because a damaged file is not read.

    Raises:
      UserError: it is not such a file, damaged, or of another version.
    """

    damage = ""

    def __init__(self, path: Path):
        """Read the metadata of a file, and no array yet."""
        self._path = path
        with self._read() as file:
            header = file.metadata() or {}
        require(
            header.get("format") == _FORMAT,
            f"{path} was not written by vqvae_jax.save_pretrained",
        )
        version = header.get("version")
        other = "version 0.1" if version == "1" else "another version"
        require(
            version == _VERSION,
            f"{path} has format version {shown(version)}, expected {_VERSION}: read it "
            f"with {other} of vqvae_jax",
        )
        with self._read():
            self._hashes = json.loads(header["sha256"])
            require(isinstance(self._hashes, dict), "its checksums are damaged")
            self.metadata = from_json(header["about"])

    def params(self, stage: str) -> Any:
        """Return the arrays of a stage.

        Raises:
          UserError: arrays are missing, surplus, damaged, not finite, or of other
            shapes or types than the model's.
        """
        expected = self.metadata.abstract_params(stage)
        prefix = f"{stage}/"
        with self._read() as file:
            names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118
            slices = {name.removeprefix(prefix): file.get_slice(name) for name in names}
            shapes = {name: tuple(x.get_shape()) for name, x in slices.items()}
            require_same_shapes(shapes, shapes_of(expected), where=stage)
            for name, leaf in named_leaves(expected).items():
                found, wanted = slices[name].get_dtype(), _DTYPES[str(leaf.dtype)]
                require(
                    found in wanted,
                    f"{prefix}{name} is of type {found}, expected {wanted[0]}",
                )
            arrays = {name: file.get_tensor(prefix + name) for name in slices}
            require(
                sha256_of_arrays(arrays) == self._hashes.get(stage),
                f"the arrays of the {stage} are damaged; copy the file again",
            )
            for name, array in arrays.items():
                require(
                    bool(np.isfinite(array).all()),
                    f"{prefix}{name} has values that are NaN or infinite",
                )
        ordered = [
            jnp.asarray(arrays[name], leaf.dtype)
            for name, leaf in named_leaves(expected).items()
        ]
        return jax.tree.unflatten(jax.tree.structure(expected), ordered)

    @contextlib.contextmanager
    def _read(self):
        """Open the file; turn any error into one line with its name."""
        require_file(self._path, limit=_MAX_BYTES)
        try:
            with safetensors.safe_open(self._path, framework="numpy") as file:
                yield file
        except _DAMAGE as error:
            raise UserError(f"{self._path}: {one_line(error)}") from error
        except safetensors.SafetensorError as error:
            raise UserError(
                f"{self._path} is not a safetensors file, damaged or truncated "
                f"({one_line(error)}): copy it again"
            ) from error
