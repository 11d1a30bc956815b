"""Logging to Weights & Biases, with a fake of its package."""

import json
import sys

import pytest

from vqvae_jax import pipeline
from vqvae_jax.runtime.errors import UserError
from vqvae_jax.training.logging import MetricsLog

FAKE = """
class Error(Exception):
    pass

class Run:
    def __init__(self, options):
        self.options, self.logged, self.exit_code = options, [], None

    def log(self, values, *, step):
        self.logged.append((step, values))

    def finish(self, exit_code):
        self.exit_code = exit_code

runs = []

def init(**options):
    if options["group"] == "refused":
        raise Error("not logged in,\\nno key")
    runs.append(Run(options))
    return runs[-1]
"""


@pytest.fixture
def wandb(tmp_path, monkeypatch):
    """The fake package, enabled and installed."""
    monkeypatch.setenv("WANDB_PROJECT", "codes")
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "wandb.py").write_text(FAKE)
    monkeypatch.syspath_prepend(tmp_path / "packages")
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    import wandb

    yield wandb
    del sys.modules["wandb"]


@pytest.fixture
def workdir(tmp_path):
    (tmp_path / "cifar").mkdir()
    return tmp_path / "cifar"


def test_a_resumed_stage_continues_its_run(wandb, workdir):
    (workdir / "config.json").write_text(json.dumps({"seed": 3}))
    with MetricsLog(workdir, "vqvae", start_step=0) as log:
        log.write(5, "train", {"loss": 0.5})
        log.write(5, "validation", {"loss": 0.75})
    with MetricsLog(workdir, "vqvae", start_step=5):
        pass
    with MetricsLog(workdir, "prior", start_step=0):
        pass
    first, again, prior = wandb.runs
    assert first.logged == [(5, {"train/loss": 0.5}), (5, {"validation/loss": 0.75})]
    assert first.exit_code == 0
    assert first.options["name"] == "cifar/vqvae"
    assert first.options["group"] == prior.options["group"] == "cifar"
    assert first.options["config"] == {"seed": 3}
    assert first.options["dir"] == str(workdir)
    assert first.options["resume"] == "allow"
    assert first.options["id"] == again.options["id"] != prior.options["id"]


def test_runs_of_equal_seeds_have_different_names(wandb, tmp_path):
    for name in ("base", "beta=0.5"):
        workdir = tmp_path / name / "0"
        workdir.mkdir(parents=True)
        with MetricsLog(workdir, "vqvae", start_step=0):
            pass
    assert [run.options["group"] for run in wandb.runs] == ["base/0", "beta=0.5/0"]
    names = [run.options["name"] for run in wandb.runs]
    assert names == ["base/0/vqvae", "beta=0.5/0/vqvae"]


def test_a_failed_stage_ends_its_run_as_failed(wandb, workdir):
    with pytest.raises(KeyError), MetricsLog(workdir, "vqvae", start_step=0):
        raise KeyError
    assert wandb.runs[0].exit_code == 1


def test_errors_of_wandb_are_one_line(wandb, tmp_path):
    (tmp_path / "refused").mkdir()
    match = r"^wandb cannot open a run \(not logged in, no key\): [^\n]*WANDB_MODE"
    with pytest.raises(UserError, match=match):
        MetricsLog(tmp_path / "refused", "vqvae", start_step=0)
    # There is no run that could be resumed.
    assert not list((tmp_path / "refused").iterdir())


def test_only_the_first_process_writes(wandb, workdir, monkeypatch):
    monkeypatch.setattr("jax.process_index", lambda: 1)
    with MetricsLog(workdir, "vqvae", start_step=0) as log:
        log.write(5, "train", {"loss": 0.5})
    assert wandb.runs == []


def test_wandb_is_not_imported_unless_enabled(workdir, monkeypatch):
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    monkeypatch.setitem(sys.modules, "wandb", None)
    with MetricsLog(workdir, "vqvae", start_step=0) as log:
        log.write(5, "train", {"loss": 0.5})
    assert not (workdir / "wandb").exists()


def test_enabled_but_not_installed_raises_before_anything_starts(
    tiny_config, tmp_path, monkeypatch
):
    monkeypatch.setenv("WANDB_PROJECT", "codes")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="wandb is not installed: pip install wandb"):
        pipeline.run(tiny_config, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_folder_named_wandb_does_not_count_as_installed(
    tiny_config, tmp_path, monkeypatch
):
    """Runs of wandb create such a folder, importable as a namespace package."""
    monkeypatch.setenv("WANDB_PROJECT", "codes")
    (tmp_path / "wandb").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    with pytest.raises(UserError, match="wandb is not installed"):
        pipeline.run(tiny_config, str(tmp_path / "run"))
