"""A run of the tiny model, which tests only read, and the mesh of eight devices."""

import pytest
from line_runs import Line, make_config, make_run

from vqvae_jax.training import sharding
from vqvae_jax.training.loop import fit


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """Workdir of a run of 20 steps; tests do not modify it."""
    workdir = tmp_path_factory.mktemp("whole")
    fit(Line(), make_config(), make_run(workdir))
    return workdir


@pytest.fixture(scope="session")
def mesh():
    """The mesh of eight devices."""
    return sharding.data_mesh()
