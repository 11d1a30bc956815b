"""python -m vqvae_jax as a process: errors before slow imports, and closed pipes."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_invalid_arguments_are_reported_before_jax_is_imported(tmp_path):
    found = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "vqvae_jax", "encode", "model"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 2
    assert found.stdout == ""
    lines = found.stderr.splitlines()
    imported = {x.rpartition("|")[2].strip() for x in lines if "import time:" in x}
    assert "vqvae_jax.cli.arguments" in imported
    assert not imported & {"jax", "numpy", "absl"}
    (line,) = (x for x in lines if "import time:" not in x)
    assert line.startswith("error: the following arguments are required: INPUT")


def test_a_closed_pipe_ends_the_program_silently(tmp_path):
    """As under head: no traceback, and the exit code that shells use."""
    reading, writing = os.pipe()
    os.close(reading)
    found = subprocess.run(
        [sys.executable, "-c", _PRINTS],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writing)
    assert (found.returncode, found.stderr) == (141, "")


# A command that prints before anything slow.
_PRINTS = """
import sys
from vqvae_jax.cli import loaded, main
loaded.info = lambda options: print("a line")
sys.exit(main.main(["info", "runs/digits"]))
"""
