"""launch.py through faults, as a process: it ends as if there had been none.

Or it says in one line what has to be mended, and the same command goes on after that.
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

import jax
import numpy as np
import pytest

from vqvae_jax.runtime.locks import locked
from vqvae_jax.workdir import restore, restore_prior

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
# What each stage leaves, and how often it is killed.
LEAVES = {
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
    """The function that makes the command of a tiny run of digits, with changes."""

    def make(*flags, **changes):
        changes = tiny_changes | {"data.data_dir": digits_dir} | changes
        overrides = [f"--config.{key}={value}" for key, value in changes.items()]
        config = "--config=experiments/digits.py"
        command = [sys.executable, "launch.py", config, f"--workdir={run}"]
        return [*command, *overrides, *flags]

    return make


@contextlib.contextmanager
def started(command):
    """Start a command, and end it if it has not ended."""
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def read_to(process, start: str) -> None:
    """Read what a process prints, to the line that starts so."""
    for line in process.stdout:
        if line.startswith(start):
            return
    pytest.fail(f"it ended before {start!r}: {process.stderr.read()}")


def finish(command) -> subprocess.CompletedProcess:
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    return found


def refused(command) -> str:
    """Run a command that ends with code 2, and return the one line that says why."""
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert "Traceback" not in found.stderr
    return only_error(found.returncode, found.stderr)


def only_error(code: int, stderr: str) -> str:
    assert code == 2, stderr
    errors = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, stderr
    return errors[0]


def assert_same_run(found, expected):
    """Parameters and samples are the same to the last bit, and the page is there."""
    for restore_one in (restore, restore_prior):
        leaves = [jax.tree.leaves(restore_one(each)[1]) for each in (found, expected)]
        for x, y in zip(*leaves, strict=True):
            np.testing.assert_array_equal(x, y)
    pair = [np.load(each / "samples.npz")["images"] for each in (found, expected)]
    np.testing.assert_array_equal(*pair)
    assert (found / "report.html").exists()


def remove(path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def is_killed(command, stage: str, *, after: float) -> bool:
    """Kill -9 some seconds after a stage has begun, unless the run has ended."""
    with started(command) as process:
        read_to(process, stage)
        time.sleep(after)
        is_running = process.poll() is None
        process.kill()
        return is_running


def test_killed_twenty_times_it_ends_where_it_would_have(finished_run, command, run):
    moments, stages = random.Random(0), list(KILLS)
    for number, (stage, times) in enumerate(KILLS.items()):
        line = command(f"--stages={','.join(stages[: number + 1])}")
        while times > 0:
            if is_killed(line, stage, after=moments.uniform(0, 0.6)):
                times -= 1
            else:
                remove(run / LEAVES[stage])
    finish(command())
    assert_same_run(run, finished_run)


def test_told_to_end_it_does_in_ten_seconds_and_goes_on(finished_run, command, run):
    said = []
    for wanted in ("vqvae 10/20", "codes", "prior 10/20", "samples"):
        with started(command()) as process:
            read_to(process, wanted)
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0, process.stderr.read()
            said.append(process.stdout.read())
    assert "interrupted, vqvae is saved at step " in said[0]
    assert "interrupted, prior is saved at step " in said[2]
    for text in said:
        assert re.search(r"interrupted.*; resume with: python launch\.py --con", text)
    finish(command())
    assert_same_run(run, finished_run)


def test_of_two_processes_one_is_told_to_end(
    start_processes, run_processes, command, run, tmp_path
):
    """Both save the same step, and both end."""
    changes = {"training.steps": 100_000, "training.checkpoint_every": 50_000}
    argv = command("--stages=vqvae", **changes)[1:]
    with start_processes(argv, tmp_path / "logs") as processes:
        log = tmp_path / "logs" / "0.out"
        while "vqvae 10/" not in log.read_text():
            assert processes[0].poll() is None
            time.sleep(0.05)
        processes[1].send_signal(signal.SIGTERM)
        assert [process.wait(10) for process in processes] == [0, 0]
    texts = [(tmp_path / "logs" / f"{number}.out").read_text() for number in (0, 1)]
    steps = {re.search(r"vqvae is saved at step (\d+)", text)[1] for text in texts}
    assert len(steps) == 1
    assert (run / "checkpoints" / "vqvae" / steps.pop()).is_dir()


def test_a_flipped_byte_is_found_and_the_checkpoint_before_is_used(
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


# A dozen checkpoints of forty fit.
MANY = {"training.keep": 100, "training.checkpoint_every": 1, "training.steps": 40}
# A disk of its own, where the kernel lets anyone have one.
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
            [*NAMESPACE, "sh", "-c", "mount -t tmpfs none /mnt"],
            capture_output=True,
        ).returncode
    except OSError:
        return False


@pytest.mark.skipif(not can_mount(), reason="needs user namespaces to mount a disk")
def test_on_a_full_disk_it_says_so_and_goes_on_where_there_is_room(command, run):
    launch = command("--stages=vqvae", **MANY)
    found = subprocess.run(
        [*NAMESPACE, "bash", "-c", FULL, "full", run, *launch],
        cwd=ROOT,
        env=os.environ | {"DISK": str(run)},
        capture_output=True,
        text=True,
    )
    told = only_error(2, found.stderr)
    assert "Traceback" not in found.stderr
    assert re.search("cannot write .*(the disk is full|No space left)", told)
    assert found.returncode == 0, found.stderr
    first, second = found.stdout.split("first: 2\n")
    done, begun = (
        [int(step) for step in re.findall(r"vqvae (\d+)/40", text)]
        for text in (first, second)
    )
    assert done[0] == 1
    assert begun[-1] == 40
    # Of what it had done only what did not fit is done again.
    assert done[-1] - 2 <= begun[0] <= done[-1] + 1
    assert begun[0] > 2


def test_where_nothing_more_can_be_written_it_says_so(command, run):
    """A limit on the size of files, which needs no rights, in place of a full disk."""
    with started(command("--stages=vqvae", **{"training.steps": 1000})) as process:
        read_to(process, "vqvae 15/1000")
        while not (run / "checkpoints" / "vqvae" / "10").is_dir():
            time.sleep(0.01)
        _, most = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (1000, most))
        _, errors = process.communicate(timeout=60)
        told = only_error(process.returncode, errors)
    assert "cannot write" in told
    model, params = restore(run)
    assert model.encode(params, np.zeros((1, 8, 8, 1), np.uint8)).shape == (1, 4, 4, 1)


def data_worker(parent: int) -> int:
    """Return the one child that was spawned to work, of those that Python has."""
    tasks = Path(f"/proc/{parent}/task").glob("*/children")
    children = [int(child) for task in tasks for child in task.read_text().split()]
    (worker,) = (
        child
        for child in children
        if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()
    )
    return worker


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's /proc")
def test_a_data_worker_that_dies_is_told_within_a_minute(command):
    changes = {"data.num_workers": 1, "training.steps": 100_000}
    with started(command("--stages=vqvae", **changes)) as process:
        read_to(process, "vqvae 5/")
        os.kill(data_worker(process.pid), signal.SIGKILL)
        _, errors = process.communicate(timeout=60)
        assert "that reads the data was ended" in only_error(2, errors)


def test_what_is_not_a_number_stops_it_with_term_and_step(command):
    changes = {"training.learning_rate": 1e9, "training.steps": 1000}
    told = refused(command("--stages=vqvae", **changes))
    assert re.search(r"vqvae: \w+ is (nan|inf) at step \d+; the last good check", told)


def test_a_loss_that_is_not_a_number_is_told_with_its_step(command, run):
    """The step is neither one that is logged nor one that is saved."""
    _, launch, *flags = command("--stages=vqvae")
    assert launch == "launch.py"
    program = "tests/programs/launch_with_nan.py"
    told = refused([sys.executable, program, "13", *flags])
    assert "vqvae: loss is nan at step 13; the last good checkpoint" in told
    assert [path.name for path in (run / "checkpoints" / "vqvae").glob("*0")] == ["10"]


def test_a_second_launch_is_refused_while_the_first_lives(command, run):
    run.mkdir()
    with locked(run):
        assert "is in use by another process" in refused(command())
    assert [path.name for path in run.iterdir()] in ([], [".lock"])


def test_times_and_rights_of_files_do_not_matter(finished_run, command, run):
    """Files of the future and of 1970, none of which may be written to."""
    shutil.copytree(finished_run, run)
    for name in ("checkpoints/prior", "samples.npz", "results.json", "report.html"):
        remove(run / name)
    for number, path in enumerate(run.rglob("*")):
        os.utime(path, (0, 0) if number % 2 else (4e9, 4e9))
        if path.is_file():
            path.chmod(0o444)
    finish(command())
    assert_same_run(run, finished_run)


def test_jumps_of_the_clock_do_not_matter(finished_run, command, run):
    program = "tests/programs/launch_in_time.py"
    finish([sys.executable, program, *command()[2:]])
    assert_same_run(run, finished_run)
