"""What a command leaves: a folder that is finished, or can be finished."""

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from vqvae_jax.runtime.errors import UserError, require
from vqvae_jax.runtime.safe_io import read_json, write_bytes, write_json

_MADE_BY = "made_by.json"


class Record(NamedTuple):
    """What a folder's results come from.

    made_by: what decides them, such as the command and the model.
    sources: what each is made of, by its name.
    """

    made_by: dict[str, Any]
    sources: dict[str, str]


class Outputs:
    """A folder of results, each of which is whole or missing.

    Attributes:
      missing: the names of those that were missing at the start.
    """

    def __init__(
        self,
        folder: str,
        *,
        made_by: Mapping[str, Any],
        sources: Mapping[str, str],
        suffix: str,
        force: bool,
        reads: Iterable[str] = (),
    ):
        """Start a folder, or go on with it.

        Args:
          folder: made if it does not exist.
          made_by: what decides the results, such as the command and the model.
          sources: what each is made of, by the name of the result.
          suffix: of the files, as ".png".
          force: do not keep what is there.
          reads: the files that results are made of, which are none to be replaced.

        Raises:
          UserError: there are files in the way, or results of another command, or a
            result would replace what it is made of.
        """
        self._folder, self._suffix = Path(folder), suffix
        wanted = frozenset(sources)
        record = self._folder / _MADE_BY
        there = [name for name in sources if self.path(name).exists()]
        require_apart(map(self.path, there), reads)
        if force:
            for path in (record, *map(self.path, there)):
                _remove(path)
            there = []
        if record.exists():
            before = _read(record)
            kept = {name: sources[name] for name in there}
            for old, new in ((before.made_by, made_by), (before.sources, kept)):
                self._require_same(old, new)
            sources = {**before.sources, **sources}
        else:
            require(
                not there,
                f"{self.path(there[0]) if there else ''} exists already: choose "
                "another folder, or --force to replace it",
            )
        content = Record(dict(made_by), dict(sources))._asdict()
        write_json(record, content)
        self.missing = wanted - set(there)
        self._kept = len(there)

    def path(self, name: str) -> Path:
        """Return where a result is, or will be."""
        return self._folder / f"{name}{self._suffix}"

    def write(self, name: str, content: bytes) -> None:
        """Write a result that is missing, whole or not at all.

        Raises:
          UserError: it cannot be written.
        """
        if name in self.missing:
            write_bytes(self.path(name), content)

    def _require_same(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
        differing = [
            f"{key}: {old.get(key)!r}, not {value!r}"
            for key, value in new.items()
            if old.get(key) != value
        ]
        require(
            not differing,
            f"{self._folder} holds the results of another command "
            f"({'; '.join(differing)}): choose another folder, or --force to replace "
            "them",
        )

    def tell(self) -> None:
        """Say on the terminal what there is now."""
        kept = f" ({self._kept} were there already)" if self._kept else ""
        print(f"{self._folder}: {len(self.missing) + self._kept} files{kept}")


def npz(**arrays: Any) -> bytes:
    """Return an .npz file of arrays."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def png(image: UInt8[np.ndarray, "h w c"]) -> bytes:
    """Return a .png file of an image with 1 or 3 channels."""
    squeezed = image[..., 0] if image.shape[-1] == 1 else image
    buffer = io.BytesIO()
    Image.fromarray(squeezed).save(buffer, "PNG")
    return buffer.getvalue()


def require_apart(results: Iterable[Path], reads: Iterable[str]) -> None:
    """Raise UserError if a result would replace a file that is to be read."""
    own = {Path(path).resolve() for path in reads}
    for path in results:
        require(
            path.resolve() not in own,
            f"{path} would be replaced by what is made of it: choose another folder",
        )


def require_new(path: Path, *, force: bool) -> None:
    """Raise UserError if a single result is there already and is to stay."""
    require(force or not path.exists(), f"{path} exists already: --force replaces it")


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{path} cannot be replaced: {error.strerror}") from error


def _read(record: Path) -> Record:
    """Return a folder's record; UserError where it is damaged."""
    try:
        found = Record(**read_json(record))
        return Record(dict(found.made_by), dict(found.sources))
    except (UserError, ValueError, TypeError) as error:
        raise UserError(
            f"{record} is damaged: choose another folder, or --force to start again"
        ) from error
