"""The command line, as a process: exit codes, messages, kill -9 and resumption."""

import html
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from vqvae_jax.workdir import restore, restore_prior

ROOT = Path(__file__).parents[1]
CIFAR = ROOT.parent / "shared" / "data" / "tfds"


def command(config: str, changes: dict, *flags: str) -> list[str]:
    overrides = [f"--config.{key}={value}" for key, value in changes.items()]
    config = f"--config=experiments/{config}"
    return [sys.executable, "launch.py", config, *overrides, *flags]


def launch(*args, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(*args), cwd=ROOT, capture_output=True, text=True, **options
    )


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ("digits.py", {"model.unit": 3}),
            "--config.model.unit=3: the config has no key 'unit'",
        ),
        (
            ("digits.py", {"modl.units": 3}),
            "--config.modl.units=3: the config has no key 'modl'",
        ),
        (("digits.py", {"model.units": "x"}), "model.units"),
        (("digits.py", {"model.num_codes": 0}), "model.num_codes must be at least 1"),
        (("digits.py", {"data.image_size": 9}), "model.stages=1 halves the image"),
        (("cifar.py:huge", {}), "no variant 'huge'; there are ema"),
        (("nothing.py", {}), "nothing.py"),
        (
            ("digits.py", {}, "--stages=train"),
            "'train' does not exist; there are vqvae",
        ),
        (
            ("comparison.py", {}, "--stages=gan"),
            "a suite does all stages of",
        ),
        (("digits.py", {}, "--wrokdir=x"), "wrokdir"),
        (("digits.py", {}, "surplus"), "'surplus' is no flag"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(args, message, tmp_path):
    found = launch(args[0], args[1], f"--workdir={tmp_path / 'run'}", *args[2:])
    assert found.returncode == 2
    assert "Traceback" not in found.stderr
    lines = found.stderr.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert message in lines[0]
    assert not (tmp_path / "run").exists()


def test_a_missing_set_leaves_nothing_half_written(tmp_path):
    found = launch(
        "digits.py",
        {"data.source": "folder", "data.data_dir": tmp_path / "nowhere"},
        f"--workdir={tmp_path / 'run'}",
    )
    assert found.returncode == 2
    assert "nowhere" in found.stderr
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]
    assert len(found.stderr.strip().splitlines()) == 1


def test_help_says_what_to_type_and_names_the_flags_and_the_stages():
    found = subprocess.run(
        [sys.executable, "launch.py", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert (found.returncode, found.stderr) == (0, "")
    assert "launch.py --config experiments/digits.py\n" in found.stdout
    for word in ("--config", "--workdir", "--stages", "evaluate", "--coordinator"):
        assert f"  {word}" in found.stdout or f",{word}" in found.stdout


def test_a_config_is_found_from_any_directory(tmp_path):
    """As far as a mistake in it, which is told before anything is imported."""
    found = subprocess.run(
        [sys.executable, ROOT / "launch.py", *command("cifar.py:huge", {})[2:]],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 2
    assert "no variant 'huge'" in found.stderr


def kill_in_stage(process: subprocess.Popen, stage: str) -> None:
    """Kill -9 a moment after the stage has announced itself or done ten steps."""
    wanted = f"{stage} 10/20" if stage in ("vqvae", "prior") else stage
    for line in process.stdout:
        if line.startswith(wanted):
            break
    else:
        raise AssertionError(f"the run ended before stage {stage}")
    time.sleep(0.3)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()


def assert_same_run(a, b):
    """Parameters, samples and results of two workdirs are the same to the last bit."""
    for restore_one in (restore, restore_prior):
        leaves = [jax.tree.leaves(restore_one(w)[1]) for w in (a, b)]
        for x, y in zip(*leaves, strict=True):
            np.testing.assert_array_equal(x, y)
    np.testing.assert_array_equal(
        np.load(a / "samples.npz")["images"], np.load(b / "samples.npz")["images"]
    )


def run_with_kills(args, workdir, stages) -> None:
    line = command(*args, f"--workdir={workdir}")
    for stage in stages:
        with subprocess.Popen(
            line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            kill_in_stage(process, stage)
    last = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert last.returncode == 0, last.stderr


STAGES = ("vqvae", "codes", "prior", "samples", "evaluate", "report")


@pytest.mark.slow
def test_killed_in_every_stage_it_ends_where_it_would_have(
    finished_run, tiny_changes, digits_dir, tmp_path
):
    """[20] kill -9 six times; the undisturbed run ran in another process."""
    args = ("digits.py", tiny_changes | {"data.data_dir": digits_dir})
    run_with_kills(args, tmp_path / "run", STAGES)
    assert_same_run(tmp_path / "run", finished_run)
    words = command(*args, f"--workdir={tmp_path / 'run'}")[1:]
    page = (tmp_path / "run" / "report.html").read_text()
    assert f"<code>{html.escape(shlex.join(['python', *words]))}</code>" in page


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
    run_with_kills(("cifar.py", changes), tmp_path / "killed", STAGES)
    # The same undisturbed, where an import of TensorFlow would raise.
    blocked = tmp_path / "blocked"
    (blocked / "tensorflow").mkdir(parents=True)
    (blocked / "tensorflow" / "__init__.py").write_text("raise SystemExit(7)")
    path = os.pathsep.join([str(blocked), os.environ.get("PYTHONPATH", "")])
    whole = launch(
        "cifar.py",
        changes,
        f"--workdir={tmp_path / 'whole'}",
        env=os.environ | {"PYTHONPATH": path},
    )
    assert whole.returncode == 0, whole.stderr
    assert_same_run(tmp_path / "killed", tmp_path / "whole")


def test_a_run_of_another_machine_resumes_with_its_own_data_dir(
    finished_run, tiny_changes, digits_dir, tmp_path
):
    shutil.copytree(finished_run, tmp_path / "run")
    changes = tiny_changes | {"data.data_dir": tmp_path / "elsewhere"}
    found = launch("digits.py", changes, f"--workdir={tmp_path / 'run'}")
    assert found.returncode == 0, found.stderr
    assert "nothing to do" in found.stdout
