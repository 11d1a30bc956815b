"""Communication between processes, and options that `start` rejects."""

import json
import socket

import jax
import numpy as np
import pytest

from vqvae_jax.runtime import distributed
from vqvae_jax.runtime.errors import UserError

# Prints what each function returns in this process.
_PROGRAM = """
import json, sys, time
import jax, numpy as np
from vqvae_jax.runtime import distributed
from vqvae_jax.runtime.errors import UserError

options = dict(word[2:].split("=") for word in sys.argv[1:])
folder = options.pop("folder")
distributed.start(
    coordinator=options["coordinator"],
    num_processes=int(options["num_processes"]),
    process_id=int(options["process_id"]),
)
me = jax.process_index()
results = {"first": distributed.is_first(), "devices": jax.device_count()}
rows = np.arange(12).reshape(6, 2)
results["own"] = distributed.own_rows(rows).tolist()
together = distributed.whole(
    {"x": distributed.own_rows(rows), "mask": np.array([me == 0, True])}
)
results["whole"] = {name: array.tolist() for name, array in together.items()}

def prepare():
    # The second process finds what the first one needs a second for.
    if me == 0:
        time.sleep(1)
        open(folder + "/prepared", "w").close()
    return open(folder + "/prepared").close() or me
results["turn"] = distributed.in_turn(prepare)

def fail(process):
    def work():
        if me == process:
            raise UserError(f"nothing in {me}")
    try:
        distributed.in_turn(work)
    except UserError as error:
        return str(error)
results["failed"] = [fail(0), fail(1), fail(2)]

def differ(value):
    try:
        distributed.require_same(value, "different")
    except UserError as error:
        return str(error)
results["differ"] = [differ("same"), differ(str(me))]
distributed.barrier("end")
import rich
rich.print("printed by the first process")
print("results", json.dumps(results))
"""


def test_two_processes(run_processes, tmp_path):
    logs = tmp_path / "logs"
    assert run_processes(["-c", _PROGRAM, f"--folder={tmp_path}"], logs) == [0, 0]
    results = []
    for number in range(2):
        lines = (logs / f"{number}.out").read_text().splitlines()
        results += [
            json.loads(line.removeprefix("results "))
            for line in lines
            if line.startswith("results ")
        ]
        assert ("printed by the first process" in lines) == (number == 0)
    first, second = results
    assert (first["first"], second["first"]) == (True, False)
    assert first["devices"] == second["devices"] == 4
    assert first["own"] == [[0, 1], [2, 3], [4, 5]]
    assert second["own"] == [[6, 7], [8, 9], [10, 11]]
    whole = {
        "x": np.arange(12).reshape(6, 2).tolist(),
        "mask": [True, True, False, True],
    }
    assert first["whole"] == second["whole"] == whole
    assert (first["turn"], second["turn"]) == (0, 1)
    from_other = "process {} of this run: nothing in {}"
    assert first["failed"] == ["nothing in 0", from_other.format(1, 1), None]
    assert second["failed"] == [from_other.format(0, 0), "nothing in 1", None]
    assert first["differ"] == second["differ"] == [None, "different"]


def test_a_single_process_does_not_use_the_distributed_runtime(monkeypatch):
    monkeypatch.setattr(distributed, "multihost_utils", _Untouched())
    rows = np.arange(3)
    assert distributed.is_first()
    distributed.barrier("x")
    distributed.require_same("x", "never")
    np.testing.assert_array_equal(distributed.own_rows(rows), rows)
    assert distributed.in_turn(lambda: 5) == 5
    assert not jax.distributed.is_initialized()


def test_a_single_process_gathers_its_own_rows():
    rows = {"x": np.arange(3), "y": jax.numpy.ones((3, 2))}
    for name, array in distributed.whole(rows).items():
        assert isinstance(array, np.ndarray)
        np.testing.assert_array_equal(array, rows[name])


def test_leave_exits_a_single_process_with_the_code():
    with pytest.raises(SystemExit) as exit_code:
        distributed.leave(2)
    assert exit_code.value.code == 2


class _Untouched:
    def __getattr__(self, name):
        raise AssertionError(f"{name} was used in a single process")


@pytest.mark.parametrize(
    ("variables", "is_one_of_several"),
    [
        ({}, False),
        ({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "4"}, False),
        ({"SLURM_STEP_NUM_TASKS": "1"}, False),
        ({"SLURM_STEP_NUM_TASKS": "2"}, True),
        ({"OMPI_COMM_WORLD_SIZE": "1"}, False),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, True),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, False),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, True),
        ({"TPU_PROCESS_ADDRESSES": "a:1,b:1"}, True),
        ({"JAX_COORDINATOR_ADDRESS": "a:1"}, True),
    ],
)
def test_a_cluster_is_detected_from_its_variables(
    variables, is_one_of_several, monkeypatch
):
    monkeypatch.setattr("os.environ", variables)
    assert distributed.is_launched_by_cluster() == is_one_of_several


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"coordinator": "here"}, r"--coordinator=here must be HOST:PORT"),
        ({"coordinator": "here:http"}, r"--coordinator=here:http must be HOST:PORT"),
        ({"coordinator": ":80"}, r"--coordinator=:80 must be HOST:PORT"),
        ({"coordinator": "here:65536"}, r"must be HOST:PORT"),
        ({"num_processes": 0}, r"--num_processes must be at least 1, got 0"),
        (
            {"num_processes": 2, "process_id": 2},
            r"--process_id must be in 0 \.\.\. 1 .*, got 2",
        ),
        ({"num_processes": 2, "process_id": -1}, r"--process_id must be .* got -1"),
    ],
)
def test_invalid_options_are_rejected_before_the_start(options, message):
    with pytest.raises(UserError, match=message):
        distributed.start(**options)
    assert not jax.distributed.is_initialized()


def test_a_port_in_use_is_rejected_before_the_start():
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} .* give all processes anot"):
            distributed.start(
                coordinator=f"127.0.0.1:{port}", num_processes=2, process_id=0
            )
