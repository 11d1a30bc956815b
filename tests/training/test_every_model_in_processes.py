"""Every model in two processes; resuming on other numbers of devices."""

import json
import shutil

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from tiny_models import every_model

from vqvae_jax.training.loop import checkpoint_directory

pytestmark = pytest.mark.slow

PROGRAM = "tests/programs/train_every_model.py"
MODELS = list(every_model())
# Resumed on other devices: a model of images with a codebook and one of codes.
MOVED = ("vqvae", "prior")
ALONE = ((),)


@pytest.fixture(scope="module")
def one(run_processes, tmp_path_factory):
    """Workdir of all models, trained on four devices of one process."""
    folder = tmp_path_factory.mktemp("one")
    argv = [PROGRAM, folder / "run"]
    assert run_processes(argv, folder / "logs", devices=4, own=ALONE) == [0]
    return folder / "run"


@pytest.fixture(scope="module")
def two(run_processes, tmp_path_factory):
    """The same on two processes with two devices each."""
    folder = tmp_path_factory.mktemp("two")
    assert run_processes([PROGRAM, folder / "run"], folder / "logs") == [0, 0]
    return folder / "run"


@pytest.fixture(scope="module")
def eight(run_processes, tmp_path_factory):
    """The models in MOVED, on eight devices of one process."""
    folder = tmp_path_factory.mktemp("eight")
    argv = [PROGRAM, folder / "run", f"--models={','.join(MOVED)}"]
    assert run_processes(argv, folder / "logs", devices=8, own=ALONE) == [0]
    return folder / "run"


def read_checkpoint(workdir, name, step):
    """Return the arrays of a checkpoint by path, and its position in the data."""
    path = checkpoint_directory(workdir, name) / str(step)
    arrays = {}
    with ocp.PyTreeCheckpointer() as reader:
        for item in ("params", "training"):
            tree = reader.metadata(path / item).item_metadata.tree
            as_numpy = jax.tree.map(
                lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree
            )
            found = reader.restore(path / item, restore_args=as_numpy)
            for key, array in jax.tree_util.tree_leaves_with_path(found):
                arrays[item + jax.tree_util.keystr(key)] = array
    return arrays, (path / "data" / "metadata").read_text()


def assert_same(workdir, expected, name, step=4):
    """Compare arrays to 1e-5, the position in the data, and the logged values."""
    (arrays, position), (expected_arrays, expected_position) = (
        read_checkpoint(each, name, step) for each in (workdir, expected)
    )
    assert position == expected_position
    assert arrays.keys() == expected_arrays.keys()
    for path, array in expected_arrays.items():
        np.testing.assert_allclose(
            arrays[path], array, rtol=1e-5, atol=1e-5, err_msg=path
        )
    log, expected_log = (read_log(each, name) for each in (workdir, expected))
    assert log.keys() == expected_log.keys()
    for entry, values in expected_log.items():
        assert log[entry] == pytest.approx(values, rel=1e-4, abs=1e-4)


def read_log(workdir, name):
    """Return the values by (split, step); each was written once."""
    log = {}
    for line in (workdir / "metrics.jsonl").read_text().splitlines():
        entry = json.loads(line)
        key = entry.pop("split"), entry.pop("step")
        entry.pop("examples_per_second", None)
        if entry.pop("stage") == name:
            assert key not in log
            log[key] = entry
    return log


@pytest.mark.parametrize("name", MODELS)
def test_two_processes_give_the_results_of_one(name, one, two):
    assert_same(two, one, name)


@pytest.mark.parametrize("name", MODELS)
def test_training_changes_parameters(name, one):
    """Two steps change some parameter by a hundred times the tolerance."""
    before, after = (read_checkpoint(one, name, step)[0] for step in (2, 4))
    moved = [
        np.abs(after[path] - before[path]).max() for path in after if "params" in path
    ]
    assert max(moved) > 1e-3


@pytest.mark.parametrize(("start", "devices"), [("eight", 1), ("eight", 4), ("two", 1)])
def test_resuming_on_other_devices_gives_the_same_results(
    start, devices, one, run_processes, request, tmp_path
):
    """Resume after two of four steps, with the same data."""
    workdir = tmp_path / "run"
    shutil.copytree(request.getfixturevalue(start), workdir)
    for name in MOVED:
        (checkpoint_directory(workdir, name) / "finished.json").unlink()
        shutil.rmtree(checkpoint_directory(workdir, name) / "4")
    argv = [PROGRAM, workdir, f"--models={','.join(MOVED)}"]
    assert run_processes(argv, tmp_path / "logs", devices=devices, own=ALONE) == [0]
    for name in MOVED:
        assert_same(workdir, one, name)
