"""What a function adds to the peak memory of a process that does nothing else."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
_STATUS = Path("/proc/self/status")


def of_run(module: str, function: str, **sizes: Any) -> int | None:
    """Return the bytes that two calls add to a fresh process, or None off Linux.

    `function` of benchmarks/`module`.py makes what is called, from `sizes`. Its
    imports, inputs and compilation come before, so that they are not counted.
    """
    if not _STATUS.exists():
        return None
    code = (
        "import json, sys; from benchmarks import peak_memory; "
        "peak_memory.report(*json.loads(sys.argv[1]))"
    )
    command = [sys.executable, "-c", code, json.dumps([module, function, sizes])]
    process = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True
    )
    return int(process.stdout.splitlines()[-1])


def report(module: str, function: str, sizes: dict[str, Any]) -> None:
    """Print what `of_run` returns: called in the fresh process."""
    make = getattr(importlib.import_module(f"benchmarks.{module}"), function)
    run = make(**sizes)
    before = _high_water()
    run()
    run()
    print(_high_water() - before)


def _high_water() -> int:
    """Return the most memory that this process has had, in bytes.

    `resource.getrusage` would count what its parent had before it, too.
    """
    (line,) = (
        line
        for line in _STATUS.read_text(encoding="utf-8").splitlines()
        if line.startswith("VmHWM")
    )
    return 1024 * int(line.split()[1])
