"""The increase of a process's peak memory caused by a function."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax

ROOT = Path(__file__).parents[1]
_STATUS = Path("/proc/self/status")


def of_run(module: str, function: str, **sizes: Any) -> int | None:
    """Return by how many bytes two calls raise the peak memory of a fresh process.

    Returns None where it cannot be measured: on systems other than Linux, and on a GPU
    or TPU, whose memory does not belong to the process.

    `function` of benchmarks/`module`.py builds the call from `sizes`. Imports, inputs
    and compilation happen before the measurement, and are not counted.
    """
    if not _STATUS.exists() or jax.default_backend() != "cpu":
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
    """Print the return value of `of_run`; called in the fresh process."""
    make = getattr(importlib.import_module(f"benchmarks.{module}"), function)
    run = make(**sizes)
    before = high_water()
    run()
    run()
    print(high_water() - before)


def high_water() -> int:
    """Return the peak memory of this process in bytes, on Linux.

    `resource.getrusage` would include that of the process that started this one.
    """
    (line,) = (
        line
        for line in _STATUS.read_text(encoding="utf-8").splitlines()
        if line.startswith("VmHWM")
    )
    return 1024 * int(line.split()[1])
