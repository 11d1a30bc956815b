"""A finished run that a test may change."""

import shutil

import pytest


@pytest.fixture
def copied_run(finished_run, tmp_path):
    """A copy of the workdir of a tiny digits run through all stages."""
    return shutil.copytree(finished_run, tmp_path / "run")
