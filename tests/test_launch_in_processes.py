"""launch.py in two processes: a whole run, a killed one, and errors."""

import json
import shutil
import signal
import time

import pytest
from launch_checks import overrides
from run_comparison import assert_same_run

pytestmark = pytest.mark.slow

ALONE = ((),)


@pytest.fixture
def argv(tiny_changes, digits_dir):
    """The command line of a tiny digits run."""
    changes = tiny_changes | {"data.data_dir": digits_dir}
    return ["launch.py", "--config=experiments/digits.py", *overrides(changes)]


def test_all_stages_and_a_repeated_command(argv, run_processes, finished_run, tmp_path):
    command = [*argv, f"--workdir={tmp_path / 'run'}"]
    assert run_processes(command, tmp_path / "first") == [0, 0]
    assert_same_run(tmp_path / "run", finished_run)
    names = [
        {p.name for p in each.iterdir()} for each in (tmp_path / "run", finished_run)
    ]
    assert names[0] - names[1] == {"command.txt"}
    assert names[1] < names[0]
    lines = []
    for each in (tmp_path / "run", finished_run):
        log = map(json.loads, (each / "metrics.jsonl").read_text().splitlines())
        lines.append([(entry["stage"], entry["split"], entry["step"]) for entry in log])
    assert lines[0] == lines[1]
    output = [(tmp_path / "first" / f"{p}.out").read_text() for p in range(2)]
    assert "vqvae 20/20" in output[0]
    lines = output[1].splitlines()
    assert not [line for line in lines if not line.startswith("[Gloo]")]
    assert run_processes(command, tmp_path / "again") == [0, 0]
    assert "nothing to do" in (tmp_path / "again" / "0.out").read_text()


def test_one_process_resumes_a_killed_run_of_two(
    argv, start_processes, run_processes, finished_run, tmp_path
):
    command = [*argv, f"--workdir={tmp_path / 'run'}"]
    with start_processes(command, tmp_path / "killed") as processes:
        # Wait for the checkpoint after ten of twenty steps.
        while not (tmp_path / "run" / "checkpoints" / "vqvae" / "10").exists():
            assert all(each.poll() is None for each in processes)
            time.sleep(0.05)
        processes[1].send_signal(signal.SIGKILL)
        # JAX ends the other process, which would wait for the killed one for ever.
        assert processes[0].wait(300) != 0
    assert not (tmp_path / "run" / "checkpoints" / "vqvae" / "finished.json").exists()
    assert run_processes(command, tmp_path / "resumed", devices=1, own=ALONE) == [0]
    assert_same_run(tmp_path / "run", finished_run)


@pytest.mark.parametrize(
    ("common", "own", "message"),
    [
        (
            ["--num_processes=3", "--start_timeout=20"],
            ([], []),
            "timed out after 20 s waiting for 3 processes at",
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
def test_an_error_is_one_line_of_each_process(
    common, own, message, argv, run_processes, tmp_path
):
    workdir = tmp_path / "run"
    own = [[word.format(tmp_path) for word in words] for words in own]
    own = [[f"--workdir={workdir}", *common, *words] for words in own]
    codes = run_processes(argv, tmp_path / "logs", own=own)
    assert codes == [2, 2]
    for number in range(2):
        lines = (tmp_path / "logs" / f"{number}.err").read_text().splitlines()
        assert len(lines) == 1
        assert lines[0].startswith("error: ")
        assert message.format(tmp_path) in lines[0]
    shutil.rmtree(workdir, ignore_errors=True)


def test_two_processes_with_index_0_cannot_share_a_port(argv, run_processes, tmp_path):
    own = ((), ("--process_id=0", "--start_timeout=20"))
    common = [*argv, f"--workdir={tmp_path / 'run'}", "--start_timeout=20"]
    assert run_processes(common, tmp_path / "logs", own=own) == [2, 2]
    errors = "".join((tmp_path / "logs" / f"{p}.err").read_text() for p in range(2))
    assert "cannot be used here: Address already in use" in errors
    assert "timed out after 20 s waiting for 2 processes" in errors
    assert not (tmp_path / "run").exists()
