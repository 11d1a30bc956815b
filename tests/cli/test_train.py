"""The command line: what becomes of --config; the rest is tested in test_launch.py."""

import subprocess
import sys
import types
from pathlib import Path

import pytest

from vqvae_jax.cli import train

ROOT = Path(__file__).parents[1]
CIFAR = ROOT / "experiments" / "cifar.py"


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (["--config=experiments/cifar.py"], [f"--config={CIFAR}"]),
        (["--config=experiments/cifar.py:ema"], [f"--config={CIFAR}:ema"]),
        (["--config", "experiments/cifar.py:ema"], ["--config", f"{CIFAR}:ema"]),
        (["-config=experiments/cifar.py"], [f"-config={CIFAR}"]),
        ([f"--config={CIFAR}:ema"], [f"--config={CIFAR}:ema"]),
        (["--config=here.py:x"], ["--config=here.py:x"]),
        (["--config=nowhere.py"], ["--config=nowhere.py"]),
        (["--config=vqvae_jax"], ["--config=vqvae_jax"]),
        (["--config"], ["--config"]),
        (
            ["--config.data.data_dir=experiments/cifar.py", "--workdir=README.md"],
            ["--config.data.data_dir=experiments/cifar.py", "--workdir=README.md"],
        ),
    ],
)
def test_a_config_of_the_repository_is_found_elsewhere(
    given, found, tmp_path, monkeypatch
):
    (tmp_path / "here.py").touch()
    monkeypatch.chdir(tmp_path)
    assert train.with_config_found(["launch.py", *given]) == ["launch.py", *found]


def test_what_is_here_comes_first(tmp_path, monkeypatch):
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "cifar.py").touch()
    monkeypatch.chdir(tmp_path)
    given = ["launch.py", "--config=experiments/cifar.py:ema"]
    assert train.with_config_found(given) == given


@pytest.mark.parametrize(
    "error",
    [
        "a mistake\nin two  lines",
        "Error: Traceback (most recent call last):\n  File x\n"
        "ValueError: a mistake in two lines",
    ],
)
def test_a_mistake_is_told_in_one_line(error, capsys):
    with pytest.raises(SystemExit) as exit_code:
        train.fail(error)
    assert exit_code.value.code == 2
    assert capsys.readouterr().err == "error: a mistake in two lines\n"


@pytest.mark.parametrize("form", ["--config={}", "--config {}:x"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("x = 1", "has no attribute 'get_config'"),
        (
            "import math\ndef get_config(variant=''):\n    return math.tau_of",
            "module 'math' has no attribute 'tau_of'",
        ),
    ],
)
def test_a_config_file_that_fails_is_told_by_its_name(form, content, message, tmp_path):
    """Not as if a key were unknown: of the overrides none is."""
    (tmp_path / "mine.py").write_text(content)
    words = form.format(tmp_path / "mine.py").split()
    found = subprocess.run(
        [sys.executable, "launch.py", *words, "--config.data.data_dir=a.module"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert found.returncode == 2
    assert found.stderr.startswith(f"error: {tmp_path / 'mine.py'}")
    assert message in found.stderr
    assert "no key" not in found.stderr
    assert found.stderr.count("\n") == 1


def test_the_command_line_is_read_before_jax_is():
    program = "import sys; import vqvae_jax.cli.train; print('jax' in sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True
    )
    assert found.stdout == "False\n", found.stderr


def test_only_writes_that_nobody_waits_for_are_not_told():
    told = []
    hook = train._without_late_writes(lambda given: told.append(given.exc_value))
    errors = RuntimeError("Event loop is closed"), RuntimeError("another"), OSError("x")
    for error in errors:
        hook(types.SimpleNamespace(exc_value=error))
    assert told == list(errors[1:])
