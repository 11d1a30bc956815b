"""The results of a command: made batch by batch, with a record of their origin."""

import argparse
import contextlib
import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rich
import rich.progress
from jaxtyping import UInt8
from PIL import Image

from vqvae_jax.runtime.errors import UserError, require
from vqvae_jax.runtime.safe_io import read_json, remove_empty, write_bytes, write_json

_MADE_BY = "made_by.json"
# File systems allow 255 bytes, of which the name of a temporary file needs five more.
_MAX_NAME = 250

# The sources of a batch, by name -> the content of a file for each.
Make = Callable[[dict[str, str]], list[bytes]]
# The name of a file, and its content from the paths of the results.
Summary = tuple[str, Callable[[Sequence[Path]], bytes]]


class Record(NamedTuple):
    """The origin of a folder's results.

    Attributes:
      made_by: what determines them, such as the command and the model.
      sources: the source of each, by its name.
    """

    made_by: dict[str, Any]
    sources: dict[str, str]


class Outputs:
    """A folder of results, each of which is complete or missing.

    Attributes:
      missing: names of the results that were missing at the start.
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
        remade: Iterable[str] = (),
    ):
        """Create a folder, or resume it.

        Args:
          folder: created if missing.
          made_by: what determines the results, such as the command and the model.
          sources: the source of each result, by its name.
          suffix: of the files, as ".png".
          force: replace existing results.
          reads: input files, which must not be replaced.
          remade: names of further files, which are replaced if the folder is resumed.

        Raises:
          UserError: the folder has other files or results of another command, or a
            result would replace an input or cannot be written.
        """
        self._folder, self._suffix = Path(folder), suffix
        wanted = frozenset(sources)
        record = self._folder / _MADE_BY
        has_record = _exists(record)
        existing = [name for name in sources if _exists(self.path(name))]
        require_apart(map(self.path, existing), reads)
        if force:
            for path in (record, *map(self.path, existing)):
                _remove(path)
            existing, has_record = [], False
        if has_record:
            before = _read(record)
            kept = {name: sources[name] for name in existing}
            for old, new in ((before.made_by, made_by), (before.sources, kept)):
                self._require_same(old, new)
            sources = {**before.sources, **sources}
        else:
            others = [self._folder / name for name in remade]
            found = [*map(self.path, existing), *filter(_exists, others)]
            require(
                force or not found,
                f"{found[0] if found else ''} exists already: choose another folder, "
                "or --force to replace it",
            )
        paths = (record, *map(self.path, wanted))
        folders = {folder for path in paths for folder in path.parents}
        missing = (folder for folder in folders if not folder.exists())
        # Inner ones first.
        self._created = sorted(missing, key=lambda path: -len(path.parts))
        self._is_new = not has_record
        content = Record(dict(made_by), dict(sources))._asdict()
        try:
            write_json(record, content)
        except UserError:
            self.remove_if_empty()
            raise
        self.missing = wanted - set(existing)
        self._num_existing = len(existing)

    def path(self, name: str) -> Path:
        """Return the path of a result."""
        return self._folder / f"{name}{self._suffix}"

    def write(self, name: str, content: bytes) -> None:
        """Write a missing result atomically.

        Raises:
          UserError: it cannot be written.
        """
        write_bytes(self.path(name), content)
        self._is_new = False

    def remove_if_empty(self) -> None:
        """Remove the record and the created folders if no result was written.

        Otherwise a failed command would reserve the folder.
        """
        if self._is_new:
            # The error that ended the command is more informative.
            with contextlib.suppress(OSError):
                (self._folder / _MADE_BY).unlink(missing_ok=True)
            remove_empty(self._created)

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

    def print_summary(self) -> None:
        """Print the number of files."""
        existed = f" ({self._num_existing} existed)" if self._num_existing else ""
        total = len(self.missing) + self._num_existing
        print(f"{self._folder}: {total} files{existed}")


def make_files(
    options: argparse.Namespace,
    sources: Mapping[str, str],
    make: Make,
    *,
    made_by: Mapping[str, Any],
    suffix: str,
    reads: Iterable[str] = (),
    summary: Summary | None = None,
) -> None:
    """Make the missing files of a folder.

    Args:
      options: with `out`, the folder, `force` and `batch_size`.
      sources: the source of each result, by its name.
      make: makes a batch of results, none of which depends on the others.
      made_by: what determines the results.
      suffix: of the files.
      reads: input files.
      summary: a file that is made from the finished ones each time.

    Raises:
      UserError: the folder has other files, or a file cannot be written.
    """
    outputs = Outputs(
        options.out,
        made_by=made_by,
        sources=sources,
        suffix=suffix,
        force=options.force,
        reads=reads,
        remade=[summary[0]] if summary else (),
    )
    try:
        _make_missing(outputs, options, sources, make)
        if summary:
            name, summarize = summary
            content = summarize([outputs.path(source) for source in sources])
            write_bytes(Path(options.out) / name, content)
    except BaseException:
        outputs.remove_if_empty()
        raise
    outputs.print_summary()


def _make_missing(
    outputs: Outputs,
    options: argparse.Namespace,
    sources: Mapping[str, str],
    make: Make,
) -> None:
    names = [name for name in sources if name in outputs.missing]
    with progress(options.command, len(names)) as advance:
        for start in range(0, len(names), options.batch_size):
            batch = names[start : start + options.batch_size]
            contents = make({name: sources[name] for name in batch})
            for name, content in zip(batch, contents, strict=True):
                outputs.write(name, content)
            advance(len(batch))


@contextlib.contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a progress bar; yield the function that advances it."""
    console = rich.get_console()
    columns = (
        rich.progress.TextColumn("[bold]{task.description}"),
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TimeRemainingColumn(),
    )
    bar = rich.progress.Progress(*columns, disable=not console.is_terminal)
    task = bar.add_task(what, total=total)
    with bar:
        yield lambda more: bar.advance(task, more)


def png(image: UInt8[np.ndarray, "h w c"]) -> bytes:
    """Return a .png file of an image with 1 or 3 channels."""
    squeezed = image[..., 0] if image.shape[-1] == 1 else image
    buffer = io.BytesIO()
    Image.fromarray(squeezed).save(buffer, "PNG")
    return buffer.getvalue()


def require_apart(results: Iterable[Path], reads: Iterable[str]) -> None:
    """Raise UserError if a result would replace an input."""
    inputs = {Path(path).resolve() for path in reads}
    for path in results:
        require(
            path.resolve() not in inputs,
            f"{path} is an input and would be replaced: choose another folder",
        )


def require_new(path: Path, *, force: bool) -> None:
    """Raise UserError if a single result must not be replaced or cannot be written."""
    exists = _exists(path)
    require(force or not exists, f"{path} exists already: --force replaces it")


def _exists(path: Path) -> bool:
    """Return whether a result exists; UserError if it cannot be written there."""
    require(
        len(os.fsencode(path.name)) <= _MAX_NAME,
        f"cannot write {path}: its name has more than {_MAX_NAME} bytes; rename its "
        "input or choose a shorter name",
    )
    try:
        path.stat()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    return True


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{path} cannot be replaced: {error.strerror}") from error


def _read(record: Path) -> Record:
    """Return a folder's record; UserError if it is damaged."""
    try:
        found = Record(**read_json(record))
        return Record(dict(found.made_by), dict(found.sources))
    except (UserError, ValueError, TypeError) as error:
        raise UserError(
            f"{record} is damaged: choose another folder, or --force to start again"
        ) from error
