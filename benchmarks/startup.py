"""Time from the command to the first training step of experiments/digits.py.

    python benchmarks/startup.py [--json startup.json]

Cold is the first command on a machine: the digits are prepared and every program is
compiled. Warm is the same command for another workdir: both are on disk.
"""

import dataclasses
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # Run from a checkout, as printed.

from benchmarks import command
from benchmarks.tables import Outcome, Row, Table

ROOT = Path(__file__).parents[1]


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Changes of the config besides the number of steps."""

    changes: tuple[str, ...] = ()


TINY = Sizes(("model.units=8", "model.residual_units=8", "training.init_batches=1"))


def first_step(changes: tuple[str, ...], workdir: Path, cache: Path) -> float:
    """Run the command in a process of its own; return seconds to its first step.

    The step is over when the loop, which logs it, has fetched its loss.

    Raises:
      RuntimeError: the process ended without it.
    """
    changes = ("training.steps=1", "training.log_every=1", *changes)
    arguments = [
        sys.executable,
        str(ROOT / "launch.py"),
        f"--config={ROOT / 'experiments' / 'digits.py'}",
        f"--workdir={workdir}",
        "--stages=vqvae",
        *(f"--config.{change}" for change in changes),
    ]
    environment = {
        **os.environ,
        "TFDS_DATA_DIR": str(cache / "tfds"),
        "JAX_COMPILATION_CACHE_DIR": str(cache / "programs"),
        "PYTHONUNBUFFERED": "1",
    }
    start = time.perf_counter()
    with subprocess.Popen(
        arguments, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        for line in process.stdout:
            if line.startswith("vqvae 1/1"):
                seconds = time.perf_counter() - start
                # What follows, a checkpoint, is left to end well.
                process.communicate()
                return seconds
    raise RuntimeError(f"{' '.join(arguments)} ended with {process.returncode}")


def measure(sizes: Sizes, rounds: int) -> list[Table]:
    """Run the command once cold, then warm."""
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        seconds = [
            first_step(sizes.changes, place / f"run{number}", place)
            for number in range(1 + rounds)
        ]
    cold, warm = seconds[:1], seconds[1:]
    rows = [Row("cold", cold), Row("warm", warm)]
    outcome = Outcome("seconds to the first step, warm", warm, 12.0, at_most=True)
    return [Table("From the command to the first step of digits", rows, [outcome])]


BENCHMARK = command.Benchmark("startup", measure, Sizes(), TINY, rounds=3)

if __name__ == "__main__":
    command.main(__doc__, [BENCHMARK])
