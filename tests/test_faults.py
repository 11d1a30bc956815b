"""launch.py as a process under faults: the run ends as an undisturbed one.

Otherwise it reports in one line what to repair, and the same command resumes it.
"""

import contextlib
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from launch_checks import assert_bit_identical, overrides

import vqvae_jax
from vqvae_jax.runtime.locks import locked

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
# The result of each stage, and how often it is killed.
RESULTS = {
    "vqvae": "checkpoints/vqvae",
    "codes": "codes",
    "prior": "checkpoints/prior",
    "samples": "samples.npz",
    "evaluate": "results.json",
    "report": "report.html",
}
KILLS = {"vqvae": 4, "codes": 3, "prior": 4, "samples": 3, "evaluate": 3, "report": 3}


@pytest.fixture
def run(tmp_path):
    """The workdir."""
    return tmp_path / "run"


@pytest.fixture
def command(tiny_changes, digits_dir, run):
    """(*flags, **changes) -> the command of a tiny run of digits."""

    def make(*flags, **changes):
        changes = tiny_changes | {"data.data_dir": digits_dir} | changes
        config = "--config=experiments/digits.py"
        command = [sys.executable, "launch.py", config, f"--workdir={run}"]
        return [*command, *overrides(changes), *flags]

    return make


@contextlib.contextmanager
def started(command):
    """Start a command; kill it at the end if it still runs."""
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def read_to(process, start: str) -> None:
    """Read the output of a process up to a line that starts with `start`."""
    for line in process.stdout:
        if line.startswith(start):
            return
    pytest.fail(f"the process ended before {start!r}: {process.stderr.read()}")


def finish(command) -> subprocess.CompletedProcess:
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    return found


def error_of(command) -> str:
    """Run a command that exits with code 2, and return its one-line error."""
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert "Traceback" not in found.stderr
    return only_error(found.returncode, found.stderr)


def only_error(code: int, stderr: str) -> str:
    assert code == 2, stderr
    errors = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, stderr
    return errors[0]


def assert_same_run(found, expected):
    assert_bit_identical(found, expected)
    assert (found / "report.html").exists()


def remove(path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def is_killed(command, stage: str, *, after: float) -> bool:
    """Kill a run some seconds after a stage has begun, unless it has ended."""
    with started(command) as process:
        read_to(process, stage)
        time.sleep(after)
        is_running = process.poll() is None
        process.kill()
        return is_running


def test_a_run_killed_twenty_times_equals_an_undisturbed_one(
    finished_run, command, run
):
    moments, stages = random.Random(0), list(KILLS)
    for number, (stage, times) in enumerate(KILLS.items()):
        line = command(f"--stages={','.join(stages[: number + 1])}")
        while times > 0:
            if is_killed(line, stage, after=moments.uniform(0, 0.6)):
                times -= 1
            else:
                remove(run / RESULTS[stage])
    finish(command())
    assert_same_run(run, finished_run)


def test_sigterm_ends_a_run_within_ten_seconds_and_it_resumes(
    finished_run, command, run
):
    outputs = []
    for wanted in ("vqvae 10/20", "codes", "prior 10/20", "samples"):
        with started(command()) as process:
            read_to(process, wanted)
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 143, process.stderr.read()
            outputs.append(process.stdout.read())
    assert "interrupted, vqvae is saved at step " in outputs[0]
    assert "interrupted, prior is saved at step " in outputs[2]
    for text in outputs:
        assert re.search(r"interrupted.*; resume with: python launch\.py --con", text)
    finish(command())
    assert_same_run(run, finished_run)


def test_sigterm_to_one_of_two_processes_ends_both(
    start_processes, run_processes, command, run, tmp_path
):
    """Both save the same step."""
    changes = {"training.steps": 100_000, "training.checkpoint_every": 50_000}
    argv = command("--stages=vqvae", **changes)[1:]
    with start_processes(argv, tmp_path / "logs") as processes:
        log = tmp_path / "logs" / "0.out"
        while "vqvae 10/" not in log.read_text():
            assert processes[0].poll() is None
            time.sleep(0.05)
        processes[1].send_signal(signal.SIGTERM)
        assert [process.wait(10) for process in processes] == [143, 143]
    texts = [(tmp_path / "logs" / f"{number}.out").read_text() for number in (0, 1)]
    steps = {re.search(r"vqvae is saved at step (\d+)", text)[1] for text in texts}
    assert len(steps) == 1
    assert (run / "checkpoints" / "vqvae" / steps.pop()).is_dir()


def test_a_flipped_byte_is_detected_and_the_previous_checkpoint_used(
    finished_run, command, run
):
    shutil.copytree(finished_run, run)
    checkpoints = run / "checkpoints" / "vqvae"
    (checkpoints / "finished.json").unlink()
    parts = [p for p in (checkpoints / "20" / "params").rglob("*") if p.is_file()]
    largest = max(parts, key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    found = finish(command())
    assert f"checkpoint {checkpoints / '20'} cannot be read and is" in found.stderr
    assert "vqvae 15/20" in found.stdout
    assert_same_run(run, finished_run)


# A dozen of these forty checkpoints fit on the disk.
MANY = {"training.keep": 100, "training.checkpoint_every": 1, "training.steps": 40}
# Allows mounting a disk where the kernel has user namespaces.
NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount"]
FULL = """
set -e
mkdir "$1" && mount -t tmpfs -o size=2m none "$1"
shift
code=0
"$@" || code=$?
echo "first: $code"
mount -o remount,size=256m "${DISK}"
exec "$@"
"""


def can_mount() -> bool:
    try:
        return not subprocess.run(
            [*NAMESPACE, "sh", "-c", "mount -t tmpfs none /mnt"], capture_output=True
        ).returncode
    except OSError:
        return False


@pytest.mark.skipif(not can_mount(), reason="needs user namespaces to mount a disk")
def test_a_full_disk_is_reported_and_the_run_resumes_with_more_space(command, run):
    launch = command("--stages=vqvae", **MANY)
    found = subprocess.run(
        [*NAMESPACE, "bash", "-c", FULL, "full", run, *launch],
        cwd=ROOT,
        env=os.environ | {"DISK": str(run)},
        capture_output=True,
        text=True,
    )
    error = only_error(2, found.stderr)
    assert "Traceback" not in found.stderr
    assert re.search("cannot write .*(the disk is full|No space left)", error)
    assert found.returncode == 0, found.stderr
    first, second = found.stdout.split("first: 2\n")
    done, resumed = (
        [int(step) for step in re.findall(r"vqvae (\d+)/40", text)]
        for text in (first, second)
    )
    assert done[0] == 1
    assert resumed[-1] == 40
    # Only steps whose checkpoints did not fit are repeated.
    assert done[-1] - 2 <= resumed[0] <= done[-1] + 1
    assert resumed[0] > 2


def test_a_failed_write_is_reported(command, run):
    """A limit on file sizes, which needs no privileges, replaces a full disk."""
    with started(command("--stages=vqvae", **{"training.steps": 1000})) as process:
        read_to(process, "vqvae 15/1000")
        while not (run / "checkpoints" / "vqvae" / "10").is_dir():
            time.sleep(0.01)
        _, most = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (1000, most))
        _, errors = process.communicate(timeout=60)
        error = only_error(process.returncode, errors)
    assert "cannot write" in error
    model, params = vqvae_jax.restore(run)
    assert model.encode(params, np.zeros((1, 8, 8, 1), np.uint8)).shape == (1, 4, 4, 1)


def data_worker(parent: int) -> int:
    """Return the child process that reads data, of all children of a Python process."""
    tasks = Path(f"/proc/{parent}/task").glob("*/children")
    children = [int(child) for task in tasks for child in task.read_text().split()]
    (worker,) = (
        child
        for child in children
        if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()
    )
    return worker


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's /proc")
def test_a_killed_data_worker_is_reported_within_a_minute(command):
    changes = {"data.num_workers": 1, "training.steps": 100_000}
    with started(command("--stages=vqvae", **changes)) as process:
        read_to(process, "vqvae 5/")
        os.kill(data_worker(process.pid), signal.SIGKILL)
        _, errors = process.communicate(timeout=60)
        assert "data worker process was killed" in only_error(2, errors)


def test_divergence_is_reported_with_term_and_step(command):
    changes = {"training.learning_rate": 1e9, "training.steps": 1000}
    error = error_of(command("--stages=vqvae", **changes))
    assert re.search(r"vqvae: \w+ is (nan|inf) at step \d+; the last good check", error)


def test_a_nan_loss_is_reported_with_its_step(command, run):
    """That step is neither logged nor saved."""
    _, launch, *flags = command("--stages=vqvae")
    assert launch == "launch.py"
    program = "tests/programs/launch_with_nan.py"
    error = error_of([sys.executable, program, "13", *flags])
    assert "vqvae: loss is nan at step 13; the last good checkpoint" in error
    assert [path.name for path in (run / "checkpoints" / "vqvae").glob("*0")] == ["10"]


def test_exhausted_memory_is_reported_with_the_bytes_asked_for(command, run):
    _, launch, *flags = command("--stages=vqvae")
    assert launch == "launch.py"
    program = "tests/programs/launch_without_memory.py"
    error = error_of([sys.executable, program, *flags])
    assert error.startswith("error: out of memory (")
    assert f"{2**50} bytes" in error
    assert not run.exists()


def test_a_second_launch_in_the_same_workdir_raises(command, run):
    run.mkdir()
    with locked(run):
        assert "is in use by another process" in error_of(command())
    assert [path.name for path in run.iterdir()] in ([], [".lock"])


def test_times_and_permissions_of_files_do_not_matter(finished_run, command, run):
    """All files are read-only, with times in the future and in 1970."""
    shutil.copytree(finished_run, run)
    for name in ("checkpoints/prior", "samples.npz", "results.json", "report.html"):
        remove(run / name)
    for number, path in enumerate(run.rglob("*")):
        os.utime(path, (0, 0) if number % 2 else (4e9, 4e9))
        if path.is_file():
            path.chmod(0o444)
    finish(command())
    assert_same_run(run, finished_run)


def test_clock_jumps_do_not_matter(finished_run, command, run):
    program = "tests/programs/launch_in_time.py"
    finish([sys.executable, program, *command()[2:]])
    assert_same_run(run, finished_run)
