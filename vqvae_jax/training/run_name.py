"""What a run is called where people read its name."""

import os
from pathlib import Path


def run_name(workdir: str | os.PathLike) -> str:
    """Return the last part of a workdir's path, and the one before where it says less.

    A suite has its runs in <name>/<seed>, and a number alone tells nobody which run it
    is of.
    """
    place = Path(workdir).resolve()
    if place.name.isdecimal() and place.parent.name:
        return f"{place.parent.name}/{place.name}"
    return place.name
