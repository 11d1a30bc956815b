"""Random inputs of every kind, read by a process of their own."""

import json
import os

import pytest
from launch_checks import ROOT, python

pytestmark = pytest.mark.slow


def test_random_inputs_are_read_or_refused(
    finished_run, tmp_path, capsys, pytestconfig
):
    """None ends in another exception, takes over 20 s, or more than 2 GiB."""
    seconds = pytestconfig.getoption("--fuzz-seconds")
    env = os.environ | {
        "PYTHONPATH": str(ROOT),
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "programs"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.05",
        # One device, as users have.
        "XLA_FLAGS": "--xla_backend_optimization_level=0",
    }
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    words = ("tests/programs/fuzz.py", finished_run, f"--scratch={scratch}")
    found = python(*words, f"--seconds={seconds}", env=env)
    assert found.returncode == 0, found.stderr[-5000:]
    counts = json.loads(found.stdout.splitlines()[-1])
    with capsys.disabled():
        print(f"\n{seconds:g} s of random inputs: {counts}")
    assert len(counts) == 6
    for kind, count in counts.items():
        # Some of each kind are refused, and some are not.
        assert 0 < count["refused"] < count["tried"], kind
