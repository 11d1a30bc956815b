"""Time from launch to the first training step of experiments/digits.py.

    python benchmarks/startup.py [--json startup.json]

A cold start is the first run on a machine: it prepares the digits and compiles every
program. A warm start runs with another workdir and finds both on disk.
"""

import dataclasses
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # Allow running as a script.

from benchmarks import command
from benchmarks.report import Outcome, Row, Table

ROOT = Path(__file__).parents[1]


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Overrides of the config, in addition to the number of steps."""

    changes: tuple[str, ...] = ()


TINY = Sizes(
    (
        *(
            f"model.{section}.{name}=8"
            for section in ("encoder", "decoder")
            for name in ("channels", "residual_channels")
        ),
        "training.init_batches=1",
    )
)


def first_step(changes: tuple[str, ...], workdir: Path, cache: Path) -> float:
    """Run the command in a new process; return the seconds until its first step.

    The step ends when the loop has fetched its loss and logs it.

    Raises:
      RuntimeError: the process exited before its first step.
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
                # Let the process write its checkpoint and exit.
                process.communicate()
                return seconds
    raise RuntimeError(
        f"{' '.join(arguments)} exited with status {process.returncode} before its "
        "first step"
    )


def measure(sizes: Sizes, rounds: int) -> list[Table]:
    """Run the command once cold, then warm."""
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        seconds = [
            first_step(sizes.changes, root / f"run{number}", root)
            for number in range(1 + rounds)
        ]
    cold, warm = seconds[:1], seconds[1:]
    rows = [Row("cold", cold), Row("warm", warm)]
    outcome = Outcome("seconds to the first step, warm", warm, 12.0, at_most=True)
    return [Table("From launch to the first step of digits", rows, [outcome])]


BENCHMARK = command.Benchmark("startup", measure, Sizes(), TINY, rounds=3)

if __name__ == "__main__":
    command.main(__doc__, [BENCHMARK])
