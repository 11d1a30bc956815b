"""The output of a run without a terminal: its lines and no messages of libraries."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STAGES = ("vqvae", "codes", "prior", "samples", "evaluate", "report")
# Settings of this machine that could silence messages, and those of conftest.py.
SETTINGS = ("TF_", "XLA_", "JAX_", "ABSL_", "GLOG_", "GRPC_", "COLUMNS", "FORCE_COLOR")


@pytest.mark.slow
def test_a_new_run_prints_only_its_stages_and_steps(tiny_changes, tmp_path):
    """Preparation of data and compilation log no message of absl, XLA or TFDS."""
    changes = tiny_changes | {"data.data_dir": tmp_path / "sets"}
    command = [sys.executable, ROOT / "launch.py", "--config=experiments/digits.py"]
    command += [f"--config.{key}={value}" for key, value in changes.items()]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(SETTINGS)}
    found = subprocess.run(
        command,
        cwd=tmp_path,
        env=environment
        | {"JAX_PLATFORMS": "cpu", "XDG_CACHE_HOME": str(tmp_path / "cache")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr
    assert found.stderr == ""
    steps = r"(vqvae|prior) \d+/20: loss [\d.]+, [\d,]+ examples/s"
    *lines, last = found.stdout.splitlines()
    assert tuple(line for line in lines if not re.fullmatch(steps, line)) == STAGES
    assert len(lines) == len(STAGES) + 2 * 4
    assert last == "report: runs/digits/report.html"
    assert (tmp_path / "runs" / "digits" / "report.html").exists()
