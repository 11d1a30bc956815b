"""python -m vqvae_jax as a process: errors before slow imports, and closed pipes."""

import os
import subprocess

from launch_checks import ROOT, python

ENV = os.environ | {"PYTHONPATH": str(ROOT)}


def test_invalid_arguments_are_reported_before_jax_is_imported(tmp_path):
    words = ("-X", "importtime", "-m", "vqvae_jax", "encode", "model")
    found = python(*words, cwd=tmp_path, env=ENV)
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
    pipes = {"stdout": writing, "stderr": subprocess.PIPE}
    found = python("-c", _PRINTS, cwd=tmp_path, env=ENV, **pipes)
    os.close(writing)
    assert (found.returncode, found.stderr) == (141, "")


# A command that prints before anything slow.
_PRINTS = """
import sys
from vqvae_jax.cli import loaded, main
loaded.info = lambda options: print("a line")
sys.exit(main.main(["info", "runs/digits"]))
"""
