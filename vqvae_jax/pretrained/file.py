"""One portable file: every array of a trained model, and what it is, as safetensors.

Arrays are named by the stage that trained them and their place in its params, as
"vqvae/encoder/params/...". The metadata has `format` "vqvae_jax", `version`, `about`,
which is JSON, and `sha256`, JSON with a hash of the arrays of each stage.
"""

import contextlib
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from vqvae_jax.models.first import KINDS
from vqvae_jax.models.second import SECOND_STAGES
from vqvae_jax.pretrained.metadata import About, from_json, to_json
from vqvae_jax.runtime.errors import UserError, require
from vqvae_jax.runtime.safe_io import write_bytes
from vqvae_jax.runtime.tree_utils import require_same_shapes, shapes_of

_FORMAT, _VERSION = "vqvae_jax", "1"
_DTYPES = {"float32": "F32", "int32": "I32"}


def write(path: Path, about: About, params: Mapping[str, Any]) -> None:
    """Write a model and what follows it, whole or not at all.

    Args:
      path: of the file.
      about: the model.
      params: of each stage that `about` names.

    Raises:
      UserError: the file cannot be written.
    """
    arrays = {stage: _named(tree) for stage, tree in params.items()}
    metadata = {
        "format": _FORMAT,
        "version": _VERSION,
        "about": to_json(about),
        "sha256": json.dumps({stage: _hash(x) for stage, x in arrays.items()}),
    }
    flat = {
        f"{stage}/{name}": array
        for stage, of_stage in arrays.items()
        for name, array in of_stage.items()
    }
    write_bytes(path, safetensors.numpy.save(flat, metadata))


class File:
    """A file of `write`, read on demand; nothing in it is run.

    Attributes:
      about: what the file says it holds.

    Raises:
      UserError: it is no such file, damaged, or of another version.
    """

    def __init__(self, path: Path):
        """Read what a file holds, and no array yet."""
        self._path = path
        with self._read() as file:
            metadata = file.metadata() or {}
        require(
            metadata.get("format") == _FORMAT,
            f"{path} was not written by vqvae_jax.save_pretrained",
        )
        require(
            metadata.get("version") == _VERSION,
            f"{path} is of version {metadata.get('version')}; this program reads "
            f"version {_VERSION}",
        )
        with self._read():
            self._hashes = json.loads(metadata["sha256"])
            require(isinstance(self._hashes, dict), "its checksums are damaged")
            self.about = from_json(metadata["about"])

    def params(self, stage: str) -> Any:
        """Return the arrays of a stage.

        Raises:
          UserError: arrays are missing, too many, or of other shapes or types than the
            model has, or not those that were written.
        """
        expected = abstract_params(self.about, stage)
        prefix = f"{stage}/"
        with self._read() as file:
            names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118
            slices = {name.removeprefix(prefix): file.get_slice(name) for name in names}
            shapes = {name: tuple(x.get_shape()) for name, x in slices.items()}
            require_same_shapes(shapes, shapes_of(expected), where=stage)
            for name, leaf in _named_leaves(expected).items():
                found, wanted = slices[name].get_dtype(), _DTYPES[str(leaf.dtype)]
                require(
                    found == wanted,
                    f"{prefix}{name} is of type {found}, expected {wanted}",
                )
            arrays = {name: file.get_tensor(prefix + name) for name in slices}
            require(
                _hash(arrays) == self._hashes.get(stage),
                f"the arrays of the {stage} are not those that were written; copy the "
                "file again",
            )
        leaves, structure = jax.tree.flatten(expected)
        del leaves
        ordered = [jnp.asarray(arrays[name]) for name in _named_leaves(expected)]
        return jax.tree.unflatten(structure, ordered)

    @contextlib.contextmanager
    def _read(self):
        """Open the file; whatever fails inside is told in one line with its name."""
        try:
            with safetensors.safe_open(self._path, framework="numpy") as file:
                yield file
        except (UserError, OSError, KeyError, ValueError, TypeError) as error:
            raise UserError(f"{self._path}: {_one_line(error)}") from error
        except safetensors.SafetensorError as error:
            raise UserError(
                f"{self._path} is no safetensors file, damaged, or its end is missing "
                f"({_one_line(error)}): copy it again"
            ) from error


def abstract_params(about: About, stage: str) -> Any:
    """Return the shapes and types of what a stage trains."""
    if stage == about.kind:
        model, batch = about.model, KINDS[about.kind].batch(about.model)
    else:
        model = about.models[stage]
        batch = SECOND_STAGES[about.second].batch(model)
    return jax.eval_shape(model.init, jax.random.key(0), batch)


def hash_of(tree: Any) -> str:
    """Return a hash of the names and values of all arrays of a pytree."""
    return _hash(_named(tree))


def _named(tree: Any) -> dict[str, np.ndarray]:
    return {
        name: np.ascontiguousarray(leaf) for name, leaf in _named_leaves(tree).items()
    }


def _named_leaves(tree: Any) -> dict[str, Any]:
    """Return leaves in their own order, by the names that `shapes_of` gives them."""
    return dict(zip(shapes_of(tree), jax.tree.leaves(tree), strict=True))


def _hash(arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(name.encode())
        digest.update(arrays[name].tobytes())
    return digest.hexdigest()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
