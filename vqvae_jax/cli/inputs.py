"""What a command reads: files, folders and patterns become named files."""

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from vqvae_jax.data import folder
from vqvae_jax.runtime.errors import require
from vqvae_jax.tasks.speech import audio

IMAGES = folder.SUFFIXES
RECORDINGS = (".wav", ".flac")
CODES = (".npz",)


class Input(NamedTuple):
    """A file to read, and the name of what is made of it.

    path: of the file.
    name: as "folder/file", without the suffix.
    """

    path: Path
    name: str


def files_of(
    inputs: Sequence[str], suffixes: Sequence[str], *, named: bool = True
) -> list[Input]:
    """Return the files that are meant, those of a folder or pattern in order of name.

    Args:
      inputs: files, folders and patterns.
      suffixes: of the files to take from a folder.
      named: whether names matter, which must then be different.

    Raises:
      UserError: there is no such file or none that fits, or two would have one name.
    """
    found = [entry for text in inputs for entry in _of_one(text, suffixes)]
    if not named:
        return list({entry.path: entry for entry in found}.values())
    by_name: dict[str, Path] = {}
    for path, name in found:
        other = by_name.setdefault(name, path)
        require(
            other == path,
            f"{other} and {path} would both become {name}: rename one of them",
        )
    return [Input(path, name) for name, path in by_name.items()]


def sources_of(files: Sequence[Input]) -> dict[str, str]:
    """Return where each file is, by the name of what is made of it."""
    return {file.name: str(file.path.absolute()) for file in files}


def require_images(files: Sequence[Input]) -> None:
    """Look at every image before work starts.

    Raises:
      UserError: one is damaged or no image; the message names the first.
    """
    bad = folder.unreadable([str(file.path) for file in files])
    first = files[min(bad, default=0)].path
    require(
        not bad,
        f"{len(bad)} of {len(files)} images cannot be read, first {first}: "
        f"{bad[min(bad)] if bad else ''}",
    )


def require_recordings(files: Sequence[Input], *, rate: int) -> None:
    """Look at every recording before work starts.

    Raises:
      UserError: one cannot be read; the message names the first.
    """
    for file in files:
        audio.inspect(str(file.path), rate=rate)


def _of_one(text: str, suffixes: Sequence[str]) -> list[Input]:
    path = Path(text)
    if path.is_dir():
        inside = sorted(file for file in path.rglob("*") if _fits(file, suffixes))
        found = [
            Input(f, f.relative_to(path).with_suffix("").as_posix()) for f in inside
        ]
    elif path.is_file():
        # Named one by one, so that its suffix may be any.
        found = [Input(path, path.stem)]
    else:
        paths = (Path(match) for match in sorted(glob.glob(text, recursive=True)))
        found = [Input(file, file.stem) for file in paths if _fits(file, suffixes)]
        is_pattern = glob.has_magic(text)
        require(bool(found) or is_pattern, f"{text} does not exist")
    require(
        bool(found), f"there is no file in {text} that ends in {', '.join(suffixes)}"
    )
    return found


def _fits(path: Path, suffixes: Sequence[str]) -> bool:
    return (
        path.suffix.lower() in suffixes
        and not path.name.startswith(".")
        and path.is_file()
    )
