"""launch.py as a process: exit codes, messages, kill -9 and resumption."""

import html
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from launch_checks import assert_bit_identical, overrides, python

ROOT = Path(__file__).parents[1]
CIFAR = ROOT.parent / "shared" / "data" / "tfds"


def command(config: str, changes: dict, *flags: str) -> list[str]:
    return ["launch.py", f"--config={config}", *overrides(changes), *flags]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("digits", {"model.encoder.channels": "x"}), "model.encoder.channels"),
        (
            ("digits", {"model.quantizer.num_codes": 0}),
            "model.quantizer.num_codes must be >= 1, got 0",
        ),
        (("nothing.py", {}), "nothing.py"),
        (("digits", {}, "--stages=train"), "'train' does not exist; there are vqvae"),
        (("comparison", {}, "--stages=gan"), "a study runs all stages of all of its"),
        (("digits", {}, "--wrokdir=x"), "wrokdir"),
        (("digits", {}, "surplus"), "'surplus' is not a flag"),
    ],
)
def test_an_error_is_one_line_and_exit_code_2(args, message, tmp_path):
    config, changes, *flags = args
    words = command(config, changes, f"--workdir={tmp_path / 'run'}", *flags)
    found = python(*words)
    assert found.returncode == 2
    assert "Traceback" not in found.stderr
    lines = found.stderr.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert message in lines[0]
    assert not (tmp_path / "run").exists()


def test_missing_data_leave_no_partial_run(tmp_path):
    changes = {"data.source": "folder", "data.data_dir": tmp_path / "nowhere"}
    found = python(*command("digits", changes, f"--workdir={tmp_path / 'run'}"))
    assert found.returncode == 2
    assert "nowhere" in found.stderr
    assert not (tmp_path / "run").exists()
    assert len(found.stderr.strip().splitlines()) == 1


def test_experiments_are_found_from_any_directory(tmp_path):
    """Up to an error in the config, which is reported before slow imports."""
    words = command("cifar:huge", {})[1:]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    for program in ([ROOT / "launch.py"], ["-m", "vqvae_jax", "train"]):
        found = python(*program, *words, cwd=tmp_path, env=env)
        assert found.returncode == 2
        assert "experiments/cifar.py has no variant 'huge'" in found.stderr


def kill_in_stage(process: subprocess.Popen, stage: str) -> None:
    """Send SIGKILL soon after the stage has printed its name or step 10."""
    awaited = f"{stage} 10/20" if stage in ("vqvae", "prior") else stage
    for line in process.stdout:
        if line.startswith(awaited):
            break
    else:
        raise AssertionError(f"the run ended before stage {stage}")
    time.sleep(0.3)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def run_with_kills(args, workdir, stages) -> None:
    line = command(*args, f"--workdir={workdir}")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    for stage in stages:
        with subprocess.Popen(
            [sys.executable, *line], cwd=ROOT, text=True, **pipes
        ) as process:
            kill_in_stage(process, stage)
    last = python(*line)
    assert last.returncode == 0, last.stderr


STAGES = ("vqvae", "codes", "prior", "samples", "evaluate", "report")


@pytest.mark.slow
def test_a_run_killed_in_every_stage_has_the_same_results(
    finished_run, tiny_changes, digits_dir, tmp_path
):
    """[20] kill -9 six times; the undisturbed run was in another process."""
    args = ("experiments/digits.py", tiny_changes | {"data.data_dir": digits_dir})
    run_with_kills(args, tmp_path / "run", STAGES)
    assert_bit_identical(tmp_path / "run", finished_run)
    words = command(*args, f"--workdir={tmp_path / 'run'}")
    page = (tmp_path / "run" / "report.html").read_text()
    assert f"<code>{html.escape(shlex.join(['python', *words]))}</code>" in page


@pytest.mark.slow
def test_the_console_command_runs_the_same_experiment(
    finished_run, tiny_changes, digits_dir, tmp_path
):
    changes = tiny_changes | {"data.data_dir": digits_dir}
    words = ["train", *command("digits", changes)[1:], "--workdir=run"]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    found = python("-m", "vqvae_jax", *words, cwd=tmp_path, env=env)
    assert found.returncode == 0, found.stderr
    assert_bit_identical(tmp_path / "run", finished_run)
    expected = f"{shlex.join(['vqvae-jax', *words])}\n"
    assert (tmp_path / "run" / "command.txt").read_text() == expected


@pytest.mark.slow
@pytest.mark.skipif(not CIFAR.exists(), reason="needs CIFAR-10 beside the project")
def test_cifar_through_all_stages_without_tensorflow_and_with_kills(
    tiny_changes, tmp_path
):
    changes = tiny_changes | {
        "data.data_dir": CIFAR,
        "training.batch_size": 16,
        "prior_training.batch_size": 16,
        "prior_training.warmup_steps": 0,
        # 768 logits a pixel for 60 000 images would take minutes and gigabytes.
        "model.likelihood": "gaussian",
        "samples.num_samples": 10,
        "samples.batch_size": 10,
    }
    run_with_kills(("cifar", changes), tmp_path / "killed", STAGES)
    # The same undisturbed, where an import of TensorFlow would raise.
    blocked = tmp_path / "blocked"
    (blocked / "tensorflow").mkdir(parents=True)
    (blocked / "tensorflow" / "__init__.py").write_text("raise SystemExit(7)")
    path = os.pathsep.join([str(blocked), os.environ.get("PYTHONPATH", "")])
    words = command("cifar", changes, f"--workdir={tmp_path / 'whole'}")
    whole = python(*words, env=os.environ | {"PYTHONPATH": path})
    assert whole.returncode == 0, whole.stderr
    assert_bit_identical(tmp_path / "killed", tmp_path / "whole")
