"""The flags of training: --config, help, typos; test_launch.py tests runs."""

import os
import re

import pytest
from absl import flags
from launch_checks import ROOT, python

from vqvae_jax.cli import train

CIFAR = ROOT / "experiments" / "cifar.py"
EXPERIMENTS = (
    *("an4", "cifar", "comparison", "digits", "imagenet"),
    *("maze", "maze_video", "quantizers", "robustness", "speech", "vctk"),
)


def run(*words):
    """Run launch.py, or another program if `words` start with one."""
    return python(*(words if words[0] == "-m" else (ROOT / "launch.py", *words)))


def error_of(*words) -> str:
    """Return the one line of stderr of a launch that fails with code 2."""
    found = run(*words)
    assert found.returncode == 2
    assert found.stdout == ""
    assert found.stderr.startswith("error: ")
    assert found.stderr.count("\n") == 1
    return found.stderr


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (["--config=cifar"], [f"--config={CIFAR}"]),
        (["--config=cifar.py:small"], [f"--config={CIFAR}:small"]),
        (["--config", "cifar:small"], ["--config", f"{CIFAR}:small"]),
        (["--config=experiments/cifar"], [f"--config={CIFAR}"]),
        (["--config=experiments/cifar.py"], [f"--config={CIFAR}"]),
        (["--config=experiments/cifar.py:ema"], [f"--config={CIFAR}:ema"]),
        (["--config", "experiments/cifar.py:ema"], ["--config", f"{CIFAR}:ema"]),
        (["-config=experiments/cifar.py"], [f"-config={CIFAR}"]),
        ([f"--config={CIFAR}:ema"], [f"--config={CIFAR}:ema"]),
        (["--config=here.py:x"], ["--config=here.py:x"]),
        (["--config"], ["--config"]),
        (
            ["--config.data.data_dir=experiments/cifar.py", "--workdir=README.md"],
            ["--config.data.data_dir=experiments/cifar.py", "--workdir=README.md"],
        ),
    ],
)
def test_experiments_are_found_from_any_directory(given, found, tmp_path, monkeypatch):
    (tmp_path / "here.py").touch()
    monkeypatch.chdir(tmp_path)
    assert train.with_config_found(["launch.py", *given]) == ["launch.py", *found]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("nowhere.py", "no such file or experiment; there are an4, cifar, "),
        ("vqvae_jax", "no such file or experiment; there are an4, cifar, "),
        ("digit", "no such file or experiment, did you mean digits?; there are an4"),
        ("experiments/cifr.py:small", "did you mean cifar?; there are an4, cifar"),
        ("", "no such file or experiment; there are an4, cifar, "),
    ],
)
def test_unknown_experiments_raise_with_a_suggestion(config, message):
    for words in ([f"--config={config}"], ["--config", config]):
        with pytest.raises(flags.Error) as caught:
            train.with_config_found(["launch.py", *words])
        assert str(caught.value).startswith(f"--config={config}: there is no such file")
        assert message in str(caught.value)


def test_files_of_the_current_directory_take_precedence(tmp_path, monkeypatch):
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "cifar.py").touch()
    monkeypatch.chdir(tmp_path)
    given = ["launch.py", "--config=experiments/cifar.py:ema"]
    assert train.with_config_found(given) == given


@pytest.mark.parametrize(
    "words", [("--init_from=nothing",), ("--init_from", "nothing"), ("-init_from=x",)]
)
def test_init_from_is_short_for_a_key_of_the_config(words, tmp_path):
    line = error_of("--config=digits", f"--workdir={tmp_path / 'run'}", *words)
    assert line.startswith("error: training.init_from=")
    assert "does not exist: expected a run's workdir" in line
    other = [word.replace("init_from", "init_fro") for word in words]
    assert "init_fro" in error_of("--config=digits", *other)


def test_every_experiment_has_a_name_and_a_summary():
    found = train.experiments()
    files = {path.stem for path in (ROOT / "experiments").glob("*.py")}
    assert list(found) == sorted(files - {"__init__", "base"}) == [*EXPERIMENTS]
    for summary in found.values():
        assert summary.endswith(".")
        assert "\n" not in summary


@pytest.mark.parametrize("flag", ["--help", "-h", "--helpfull"])
def test_help_lists_flags_and_experiments(flag):
    found = run("--config=nosuch", flag)
    assert (found.returncode, found.stderr) == (0, "")
    assert f"\n  python {ROOT / 'launch.py'} --config digits\n" in found.stdout
    lines = found.stdout.splitlines()
    listed = lines[lines.index("experiments:") + 1 :]
    for name in EXPERIMENTS:
        (line,) = [each for each in listed if re.match(rf"  {name} +\S", each)]
        assert train.experiments()[name].startswith(line[18:])
    for name in train._OUR_FLAGS:
        assert re.search(rf"^  --{name} +\S", found.stdout, re.MULTILINE)
    assert "evaluate" in found.stdout


def test_the_console_command_has_the_same_help():
    found = run("-m", "vqvae_jax", "train", "--help")
    assert (found.returncode, found.stderr) == (0, "")
    assert "\n  vqvae-jax train --config digits\n" in found.stdout
    assert "\n  digits " in found.stdout
    assert "launch.py" not in found.stdout


@pytest.mark.parametrize("program", [(), ("-m", "vqvae_jax", "train")])
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config", "nosuch"], "--config=nosuch: there is no such file or experim"),
        (["--config=/nowhere/cifar.py"], "did you mean cifar?"),
        (
            ["--config=digits", "--config.model.quantizer.num_code=3"],
            "--config.model.quantizer.num_code=3: the config has no key 'num_code', "
            "did you mean model.quantizer.num_codes?",
        ),
        (
            ["--config=digits", "--config.model.quantizer.kind=fsk"],
            "model.quantizer.kind must be one of vq, residual, fsq,",
        ),
        (
            ["--config=digits", "--config.model.kind=vae"],
            "model.kind cannot be changed: choose another experiment",
        ),
        (
            ["--config=digits", "--config.model.encoder.kind=vae"],
            "encoder.kind is not an option",
        ),
        (
            # The keys are those of the kind.
            [
                *("--config=digits", "--config.model.quantizer.kind=fsq"),
                "--config.model.quantizer.num_codes=3",
            ],
            "the config has no key 'num_codes'",
        ),
    ],
)
def test_typos_are_one_line_with_a_suggestion(program, words, message):
    assert message in error_of(*program, *words)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("modl.units", "no key 'modl', did you mean model?"),
        ("training.step", "no key 'step', did you mean training.steps?"),
        # The right name in the wrong section.
        ("model.num_codes", "no key 'num_codes', did you mean model.quantizer.num_c"),
        ("label_dropout", "no key 'label_dropout', did you mean prior.label_dropout?"),
        ("trainin.batch_size", "no key 'trainin', did you mean training.batch_size?"),
        ("seed.x", "no key 'x'"),
        ("model.unit", "no key 'unit'"),
    ],
)
def test_unknown_keys_get_a_close_suggestion(path, message, tiny_config):
    found = train._unknown_key(tiny_config, path.split("."))
    assert found.startswith(f"the config has {message}")
    assert ("did you mean" in found) == ("did you mean" in message)


@pytest.mark.parametrize(
    ("words", "kinds"),
    [
        (["--config.model.quantizer.kind=fsq"], {"model.quantizer.kind": "fsq"}),
        (
            ["-config.a.kind", "x", "--config.b.kinds=y", "--config=digits:kind"],
            {"a.kind": "x"},
        ),
        (["--config.a.kind=x", "--config.a.kind=y"], {"a.kind": "y"}),
        (["config.a.kind=x", "--workdir=config.a.kind=x"], {}),
    ],
)
def test_kinds_are_found_among_the_overrides(words, kinds):
    assert train._kinds(["launch.py", *words]) == kinds


@pytest.mark.parametrize(
    "error",
    [
        "an error\nin two  lines",
        "Error: Traceback (most recent call last):\n  File x\n"
        "ValueError: an error in two lines",
    ],
)
def test_errors_are_reported_in_one_line(error, capsys):
    with pytest.raises(SystemExit) as exit_code:
        train.fail(error)
    assert exit_code.value.code == 2
    assert capsys.readouterr().err == "error: an error in two lines\n"


@pytest.mark.parametrize("form", ["--config={}", "--config {}:x"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("x = 1", "has no attribute 'get_config'"),
        (
            "import math\ndef get_config(variant=''):\n    return math.tau_of",
            "module 'math' has no attribute 'tau_of'",
        ),
        ("raise SystemExit('its words')", "ended the program: its words"),
        (
            "import sys\ndef get_config(variant=''):\n    sys.exit(0)",
            "ended the program: 0",
        ),
        (
            "def get_config(variant=''):\n    pass",
            "get_config() returned a NoneType, expected a ConfigDict",
        ),
        (
            "def get_config(variant=''):\n    return {}",
            "get_config() returned a dict, expected a ConfigDict",
        ),
    ],
)
def test_a_failing_config_file_is_named(form, content, message, tmp_path):
    """The error must not be reported as an unknown key: the overrides are valid."""
    (tmp_path / "mine.py").write_text(content)
    words = form.format(tmp_path / "mine.py").split()
    line = error_of(*words, "--config.data.data_dir=a.module")
    assert line.startswith(f"error: {tmp_path / 'mine.py'}")
    assert message in line
    assert "no key" not in line


def test_only_regular_files_of_a_moderate_size_are_configs(tmp_path):
    os.mkfifo(tmp_path / "fifo.py")
    (tmp_path / "huge.py").touch()
    os.truncate(tmp_path / "huge.py", 2**40)
    for name, message in (
        ("fifo.py", "is not a regular file"),
        ("huge.py", "has 1099511627776 bytes, expected at most"),
    ):
        line = error_of(f"--config={tmp_path / name}")
        assert f"{tmp_path / name} {message}" in line


def test_parsing_the_command_line_does_not_import_jax():
    program = "import sys; import vqvae_jax.cli.train; print('jax' in sys.modules)"
    found = python("-c", program)
    assert found.stdout == "False\n", found.stderr
