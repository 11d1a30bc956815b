"""Facts that identify a run's data folder, so that a run never mixes two folders.

A config contains only the path of a folder, which can be moved. The facts are the names
and sizes of its files; no file is read.
"""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vqvae_jax.data import folder
from vqvae_jax.runtime.errors import UserError, require
from vqvae_jax.workdir import Workdir

# JSON: `class_names`, and `splits` with `files` and `hash` of each.
Facts = dict[str, Any]


def facts_of(data: Any) -> Facts | None:
    """Return the facts that identify the files of a folder.

    None for other data, and for a folder without a train split, which raises when it is
    opened.

    Args:
      data: the `data` section of an experiment.

    Raises:
      UserError: two folders are candidates for the same split.
    """
    base = Path(data.data_dir).expanduser()
    if data.source != "folder" or not base.is_dir():
        return None
    splits = folder.split_folders(base)
    if "train" not in splits:
        return None
    class_names = [path.name for path in folder.subfolders(splits["train"])]
    return {
        "class_names": class_names,
        "splits": {
            role: _facts_of_split(path, data.suffixes, in_folders=bool(class_names))
            for role, path in splits.items()
        },
    }


def require_same(workdir: Workdir, facts: Facts | None) -> None:
    """Raise UserError unless a folder has the files that the run was started with.

    A run without saved facts accepts any folder.
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


def keep(workdir: Workdir, facts: Facts | None, *, note: str = "") -> None:
    """Write the facts of a run's folder and a note on its splits, unless they exist."""
    if facts is not None and not workdir.data.exists():
        workdir.write_json(workdir.data, facts | {"note": note})


def _facts_of_split(path: Path, suffixes: Sequence[str], *, in_folders: bool) -> Facts:
    digest, count = hashlib.sha256(), 0
    for parent in folder.subfolders(path) if in_folders else [path]:
        for file in folder.files_in(parent, tuple(suffixes)):
            name, size = os.path.basename(file), os.stat(file).st_size
            relative = os.path.join(parent.name, name) if in_folders else name
            digest.update(os.fsencode(relative) + f"\0{size}\0".encode())
            count += 1
    return {"files": count, "hash": digest.hexdigest()[:16]}


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
