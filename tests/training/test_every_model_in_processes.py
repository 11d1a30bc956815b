"""Every model in two processes; checkpoints that go on with other devices."""

import json
import shutil

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from vqvae_jax.models.first import KINDS
from vqvae_jax.models.second import SECOND_STAGES
from vqvae_jax.training.loop import checkpoint_directory

pytestmark = pytest.mark.slow

PROGRAM = "tests/programs/train_every_model.py"
MODELS = [*KINDS, *(stage for row in SECOND_STAGES.values() for stage in row.trained)]
# Moved to other devices: one of images with a codebook, and one of codes.
MOVED = ("vqvae", "prior")
ALONE = ((),)


@pytest.fixture(scope="module")
def one(run_processes, tmp_path_factory):
    """The workdir of all models, trained on four devices of one process."""
    folder = tmp_path_factory.mktemp("one")
    argv = [PROGRAM, folder / "run"]
    assert run_processes(argv, folder / "logs", devices=4, own=ALONE) == [0]
    return folder / "run"


@pytest.fixture(scope="module")
def two(run_processes, tmp_path_factory):
    """The same on two devices each of two processes."""
    folder = tmp_path_factory.mktemp("two")
    assert run_processes([PROGRAM, folder / "run"], folder / "logs") == [0, 0]
    return folder / "run"


@pytest.fixture(scope="module")
def eight(run_processes, tmp_path_factory):
    """Some of them, on eight devices of one process."""
    folder = tmp_path_factory.mktemp("eight")
    argv = [PROGRAM, folder / "run", f"--models={','.join(MOVED)}"]
    assert run_processes(argv, folder / "logs", devices=8, own=ALONE) == [0]
    return folder / "run"


def read_checkpoint(workdir, name, step):
    """Return all of a checkpoint's arrays by path, and its place in the data."""
    place = checkpoint_directory(workdir, name) / str(step)
    arrays = {}
    with ocp.PyTreeCheckpointer() as reader:
        for item in ("params", "training"):
            tree = reader.metadata(place / item).item_metadata.tree
            as_numpy = jax.tree.map(
                lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree
            )
            found = reader.restore(place / item, restore_args=as_numpy)
            for path, array in jax.tree_util.tree_leaves_with_path(found):
                arrays[item + jax.tree_util.keystr(path)] = array
    return arrays, (place / "data" / "metadata").read_text()


def assert_same(workdir, expected, name, step=4):
    """Arrays to 1e-5, the place in the data, and the logged figures."""
    (arrays, place), (expected_arrays, expected_place) = (
        read_checkpoint(each, name, step) for each in (workdir, expected)
    )
    assert place == expected_place
    assert arrays.keys() == expected_arrays.keys()
    for path, array in expected_arrays.items():
        np.testing.assert_allclose(
            arrays[path], array, rtol=1e-5, atol=1e-5, err_msg=path
        )
    log, expected_log = (read_log(each, name) for each in (workdir, expected))
    assert log.keys() == expected_log.keys()
    for entry, figures in expected_log.items():
        assert log[entry] == pytest.approx(figures, rel=1e-4, abs=1e-4)


def read_log(workdir, name):
    """Return (split, step) -> figures, each of which was written once."""
    log = {}
    for line in (workdir / "metrics.jsonl").read_text().splitlines():
        entry = json.loads(line)
        place = entry.pop("split"), entry.pop("step")
        entry.pop("examples_per_second", None)
        if entry.pop("stage") == name:
            assert place not in log
            log[place] = entry
    return log


@pytest.mark.parametrize("name", MODELS)
def test_two_processes_train_what_one_does(name, one, two):
    assert_same(two, one, name)


@pytest.mark.parametrize("name", MODELS)
def test_there_is_something_to_train(name, one):
    """Two steps move some parameter by a hundred times what may differ."""
    before, after = (read_checkpoint(one, name, step)[0] for step in (2, 4))
    moved = [
        np.abs(after[path] - before[path]).max() for path in after if "params" in path
    ]
    assert max(moved) > 1e-3


@pytest.mark.parametrize(("start", "devices"), [("eight", 1), ("eight", 4), ("two", 1)])
def test_a_checkpoint_goes_on_with_other_devices(
    start, devices, one, run_processes, request, tmp_path
):
    """After two of four steps: the same data, and the same results at the end."""
    workdir = tmp_path / "run"
    shutil.copytree(request.getfixturevalue(start), workdir)
    for name in MOVED:
        (checkpoint_directory(workdir, name) / "finished.json").unlink()
        shutil.rmtree(checkpoint_directory(workdir, name) / "4")
    argv = [PROGRAM, workdir, f"--models={','.join(MOVED)}"]
    assert run_processes(argv, tmp_path / "logs", devices=devices, own=ALONE) == [0]
    for name in MOVED:
        assert_same(workdir, one, name)
