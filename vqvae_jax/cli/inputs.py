"""The inputs of a command: files, folders and patterns as named files."""

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from vqvae_jax.runtime import resources
from vqvae_jax.runtime.errors import require

CODES = (".npz",)
# Names the photos that come with the package, unless a file has this name.
EXAMPLES = "example_photos"
# All samples in one picture, which `sample` adds to a folder and which is no input.
CONTACT_SHEET = "contact_sheet.png"


class Input(NamedTuple):
    """A file to read, and the name of its result.

    Attributes:
      path: of the file.
      name: as "folder/file", without the suffix.
    """

    path: Path
    name: str


def files_of(
    inputs: Sequence[str], suffixes: Sequence[str], *, named: bool = True
) -> list[Input]:
    """Return the files of inputs, those of a folder or pattern sorted by name.

    Args:
      inputs: files, folders and patterns.
      suffixes: of the files to take from a folder.
      named: whether results are named after them, so that names must differ.

    Raises:
      UserError: there is no matching file, or two results would have the same name.
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
    """Return the absolute path of each file, by the name of its result."""
    return {file.name: str(file.path.absolute()) for file in files}


def _of_one(text: str, suffixes: Sequence[str]) -> list[Input]:
    path = Path(text)
    if text == EXAMPLES and not path.exists():
        path = resources.folder("weights") / "photos"
    if path.is_dir():
        inside = sorted(file for file in path.rglob("*") if _fits(file, suffixes))
        found = [
            Input(f, f.relative_to(path).with_suffix("").as_posix()) for f in inside
        ]
    elif path.is_file():
        # Given explicitly, so any suffix is accepted.
        found = [Input(path, path.stem)]
    else:
        require(not path.exists(), f"{text} is not a regular file")
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
        and path.name != CONTACT_SHEET
        and path.is_file()
    )
