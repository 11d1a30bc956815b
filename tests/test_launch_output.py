"""The output of a run without a terminal: its lines and no messages of libraries."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from launch_checks import overrides, python

ROOT = Path(__file__).parents[1]
STAGES = ("vqvae", "codes", "prior", "samples", "evaluate", "report")
# Settings of this machine that could silence messages, and those of conftest.py.
SETTINGS = ("TF_", "XLA_", "JAX_", "ABSL_", "GLOG_", "GRPC_", "COLUMNS", "FORCE_COLOR")


@pytest.mark.slow
def test_a_new_run_prints_only_its_stages_and_steps(tiny_changes, tmp_path):
    """Preparation of data and compilation log no message of absl, XLA or TFDS."""
    changes = tiny_changes | {"data.data_dir": tmp_path / "sets"}
    env = {k: v for k, v in os.environ.items() if not k.startswith(SETTINGS)}
    env |= {"JAX_PLATFORMS": "cpu", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    flags = ["--config=experiments/digits.py", *overrides(changes)]
    options = {"cwd": tmp_path, "env": env, "stdin": subprocess.DEVNULL}
    found = python(ROOT / "launch.py", *flags, **options)
    assert found.returncode == 0, found.stderr
    assert found.stderr == ""
    steps = r"(vqvae|prior) \d+/20: loss [\d.]+, [\d,]+ examples/s"
    *lines, last = found.stdout.splitlines()
    assert tuple(line for line in lines if not re.fullmatch(steps, line)) == STAGES
    assert len(lines) == len(STAGES) + 2 * 4
    assert last == "report: runs/digits/report.html"
    assert (tmp_path / "runs" / "digits" / "report.html").exists()
