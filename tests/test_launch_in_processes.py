"""launch.py in two processes: a whole run, one that is killed, and mistakes."""

import json
import shutil
import signal
import time

import numpy as np
import pytest

from vqvae_jax.workdir import (
    SPLITS,
    Workdir,
    restore,
    restore_prior,
)

pytestmark = pytest.mark.slow

ALONE = ((),)


@pytest.fixture
def argv(tiny_changes, digits_dir):
    """The command of a tiny run of digits."""
    changes = tiny_changes | {"data.data_dir": digits_dir}
    overrides = [f"--config.{key}={value}" for key, value in changes.items()]
    return ["launch.py", "--config=experiments/digits.py", *overrides]


def assert_same_run(found, expected):
    """The parameters to 1e-5, the same codes, and figures to a ten-thousandth."""
    for restore_one in (restore, restore_prior):
        pair = [dict(_named(restore_one(each)[1])) for each in (found, expected)]
        assert pair[0].keys() == pair[1].keys()
        for name, array in pair[1].items():
            np.testing.assert_allclose(
                pair[0][name], array, rtol=1e-5, atol=1e-5, err_msg=name
            )
    for split in SPLITS:
        pair = [Workdir(each).codes(split) for each in (found, expected)]
        for i in range(len(pair[1])):
            for name, array in pair[1][i].items():
                np.testing.assert_array_equal(pair[0][i][name], array)
    pair = [
        json.loads((each / "results.json").read_text()) for each in (found, expected)
    ]
    figures, expected_figures = (
        {name: value for name, value in each.items() if "per_second" not in name}
        for each in pair
    )
    assert figures == pytest.approx(expected_figures, rel=1e-4, abs=1e-4)


def _named(tree):
    import jax

    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        yield jax.tree_util.keystr(path), leaf


def test_all_stages_and_once_more(argv, run_processes, finished_run, tmp_path):
    command = [*argv, f"--workdir={tmp_path / 'run'}"]
    assert run_processes(command, tmp_path / "first") == [0, 0]
    assert_same_run(tmp_path / "run", finished_run)
    names = [
        {p.name for p in each.iterdir()} for each in (tmp_path / "run", finished_run)
    ]
    assert names[0] - names[1] == {"command.txt"}
    assert names[1] < names[0]
    lines = [
        [
            (entry["stage"], entry["split"], entry["step"])
            for entry in map(
                json.loads, (each / "metrics.jsonl").read_text().splitlines()
            )
        ]
        for each in (tmp_path / "run", finished_run)
    ]
    assert lines[0] == lines[1]
    said = [(tmp_path / "first" / f"{p}.out").read_text() for p in range(2)]
    assert "vqvae 20/20" in said[0]
    assert not [line for line in said[1].splitlines() if not line.startswith("[Gloo]")]
    assert run_processes(command, tmp_path / "again") == [0, 0]
    assert "nothing to do" in (tmp_path / "again" / "0.out").read_text()


def test_one_process_goes_on_where_two_were_killed(
    argv, start_processes, run_processes, finished_run, tmp_path
):
    command = [*argv, f"--workdir={tmp_path / 'run'}"]
    with start_processes(command, tmp_path / "killed") as processes:
        # Wait for the checkpoint after ten of twenty steps.
        while not (tmp_path / "run" / "checkpoints" / "vqvae" / "10").exists():
            assert all(each.poll() is None for each in processes)
            time.sleep(0.05)
        processes[1].send_signal(signal.SIGKILL)
        # JAX ends the others: no process waits for ever for a dead one.
        assert processes[0].wait(300) != 0
    assert not (tmp_path / "run" / "checkpoints" / "vqvae" / "finished.json").exists()
    assert run_processes(command, tmp_path / "on", devices=1, own=ALONE) == [0]
    assert_same_run(tmp_path / "run", finished_run)


@pytest.mark.parametrize(
    ("common", "own", "message"),
    [
        (
            ["--num_processes=3", "--start_timeout=20"],
            ([], []),
            "not 3 processes came together at",
        ),
        (
            ["--config.training.batch_size=6"],
            ([], []),
            "training.batch_size=6 must be a multiple of the 4 devices",
        ),
        ([], (["--stages=vqvae"], []), "different configs or --stages"),
        ([], (["--config.seed=1"], ["--config.seed=2"]), "different configs"),
        ([], (["--workdir={}/a"], ["--workdir={}/b"]), "not the same directory"),
        (
            ["--config.data.source=folder"],
            (["--config.data.data_dir={}"], ["--config.data.data_dir={}/b"]),
            "{}",
        ),
    ],
)
def test_a_mistake_is_one_line_of_each_process(
    common, own, message, argv, run_processes, tmp_path
):
    place = tmp_path / "run"
    own = [[word.format(tmp_path) for word in words] for words in own]
    own = [[f"--workdir={place}", *common, *words] for words in own]
    codes = run_processes(argv, tmp_path / "logs", own=own)
    assert codes == [2, 2]
    for number in range(2):
        lines = (tmp_path / "logs" / f"{number}.err").read_text().splitlines()
        assert len(lines) == 1
        assert lines[0].startswith("error: ")
        assert message.format(tmp_path) in lines[0]
    shutil.rmtree(place, ignore_errors=True)


def test_two_first_processes_do_not_share_a_port(argv, run_processes, tmp_path):
    own = ((), ("--process_id=0", "--start_timeout=20"))
    common = [*argv, f"--workdir={tmp_path / 'run'}", "--start_timeout=20"]
    assert run_processes(common, tmp_path / "logs", own=own) == [2, 2]
    told = "".join((tmp_path / "logs" / f"{p}.err").read_text() for p in range(2))
    assert "cannot be used here: Address already in use" in told
    assert "not 2 processes came together" in told
    assert not (tmp_path / "run").exists()
