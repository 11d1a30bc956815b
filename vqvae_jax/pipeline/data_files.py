"""Which files a run's folder of data has, so that a run never mixes two folders.

A config says only where a folder is, and a folder may be moved. What it holds is known
by the names and sizes of its files: none of them is read.
"""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vqvae_jax.data import folder
from vqvae_jax.data.config import DataConfig
from vqvae_jax.runtime.errors import UserError, require
from vqvae_jax.tasks.speech import folder as speech_folder
from vqvae_jax.tasks.speech.data_config import SpeechDataConfig
from vqvae_jax.workdir import Workdir

# As JSON has it: `class_names`, and `splits` with `files` and `hash` of each.
Facts = dict[str, Any]


def facts_of(data: DataConfig | SpeechDataConfig) -> Facts | None:
    """Return what the files of a folder are known by.

    None for other data, and where there is no folder with a train split: whoever opens
    it tells what is missing.

    Raises:
      UserError: the folder has two that may be the same split.
    """
    base = Path(data.data_dir).expanduser()
    if data.source != "folder" or not base.is_dir():
        return None
    splits = folder.split_folders(base)
    if "train" not in splits:
        return None
    suffixes = folder.SUFFIXES
    if isinstance(data, SpeechDataConfig):
        suffixes = (*speech_folder.SUFFIXES, speech_folder.PHONES_SUFFIX)
    class_names = [path.name for path in folder.subfolders(splits["train"])]
    return {
        "class_names": class_names,
        "splits": {
            role: _of_split(path, suffixes, in_folders=bool(class_names))
            for role, path in splits.items()
        },
    }


def require_same(workdir: Workdir, facts: Facts | None) -> None:
    """See that a run's folder has the files that the run was started with.

    A run that has kept no facts can have any folder.

    Raises:
      UserError: it has others.
    """
    if facts is None or not workdir.data.exists():
        return
    kept = workdir.read_json(workdir.data)
    before = {name: kept.get(name) for name in facts}
    for name, value in before.items():
        require(
            isinstance(value, type(facts[name])),
            f"{workdir.data} is damaged: it has no {name}",
        )
    if before != facts:
        raise UserError(
            f"{workdir.path} was started with other files than those that "
            f"data.data_dir has now ({_difference(before, facts)}): choose another "
            "--workdir, or the files it was started with"
        )


def keep(workdir: Workdir, facts: Facts | None) -> None:
    """Write what the files of a run's folder are known by, the first time."""
    if facts is not None and not workdir.data.exists():
        workdir.write_json(workdir.data, facts)


def _of_split(path: Path, suffixes: Sequence[str], *, in_folders: bool) -> Facts:
    digest, count = hashlib.sha256(), 0
    for place in folder.subfolders(path) if in_folders else [path]:
        for name, size in _files(place, tuple(suffixes)):
            relative = os.path.join(place.name, name) if in_folders else name
            digest.update(os.fsencode(relative) + f"\0{size}\0".encode())
            count += 1
    return {"files": count, "hash": digest.hexdigest()[:16]}


def _files(path: Path, suffixes: tuple[str, ...]) -> list[tuple[str, int]]:
    with os.scandir(path) as entries:
        return sorted(
            (entry.name, entry.stat().st_size)
            for entry in entries
            if entry.name.lower().endswith(suffixes)
            and not entry.name.startswith(".")
            and entry.is_file()
        )


def _difference(before: Facts, now: Facts) -> str:
    if before["class_names"] != now["class_names"]:
        old, new = (
            ", ".join(map(str, facts["class_names"][:3])) for facts in (before, now)
        )
        return f"the folders of train were {old} ..., now {new} ..."
    old, new = before["splits"], now["splits"]
    role = next(r for r in (*new, *old) if old.get(r) != new.get(r))
    counts = [
        splits[role].get("files") if isinstance(splits.get(role), dict) else 0
        for splits in (old, new)
    ]
    if counts[0] != counts[1]:
        return f"{role} had {counts[0]} files, now {counts[1]}"
    return f"names or sizes of the {counts[1]} files of {role} are not the same"
