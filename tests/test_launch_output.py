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
    steps = r"(vqvae|prior) \d+/20: loss [\d.]+, [\d,]+ examples/s(, .* left)?"
    lines = found.stdout.splitlines()
    start, stages, end = lines[:5], lines[5:19], lines[19:]
    assert [line.split()[0] for line in start] == [
        *("run", "devices", "data", "model", "parameters")
    ]
    assert start[2].split(maxsplit=1)[1] == (
        "digits: 1,298 train, 144 validation, 355 test; 10 classes; validation is cut "
        "from train"
    )
    assert tuple(line for line in stages if not re.fullmatch(steps, line)) == STAGES
    assert end[0].startswith("PSNR of reconstructed test images (dB)  ")
    width = end[0].rindex(" ") + 1
    assert "report".ljust(width) + "runs/digits/report.html" in end
    assert "next".ljust(width) + "vqvae-jax sample runs/digits OUT --num 100" in end
    assert (tmp_path / "runs" / "digits" / "report.html").exists()
