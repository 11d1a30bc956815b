"""The runs of a study, without training."""

import copy

import pytest

from vqvae_jax import pipeline
from vqvae_jax.contrib.studies import runs
from vqvae_jax.runtime.errors import DivergedError, UserError
from vqvae_jax.workdir import Workdir


def test_every_config_runs_with_every_seed_even_if_one_diverges(
    tmp_path, monkeypatch, capsys
):
    done = []

    def run(config, workdir, only, *, brief):
        assert brief
        done.append((config["name"], config["seed"], workdir, only))
        if (config["name"], config["seed"]) == ("b", 5):
            raise DivergedError("loss is nan at step 3")

    monkeypatch.setattr(pipeline, "run", run)
    configs = {name: {"name": name, "seed": 5} for name in ("a", "b")}
    runs.run_all(Workdir(tmp_path), configs, seeds=2, only=("vqvae",))
    assert done == [
        (name, 5 + number, str(tmp_path / name / str(number)), ("vqvae",))
        for number in range(2)
        for name in ("a", "b")
    ]
    assert "b, seed 0: loss is nan at step 3" in capsys.readouterr().out
    paths = [each.path for each in runs.runs_of(Workdir(tmp_path), "a", 2)]
    assert paths == [tmp_path / "a" / "0", tmp_path / "a" / "1"]


def test_all_configs_of_a_study_are_checked(tiny_config):
    config = {"seeds": 1, "base": tiny_config}
    assert runs.checked(config, ("seeds",), {"x": tiny_config})["x"].kind == "vqvae"
    with pytest.raises(UserError, match=r"^vary is missing from the config"):
        runs.checked(config, ("vary",), {})
    with pytest.raises(UserError, match=r"^seeds must be at least 1, got 0"):
        runs.checked(config | {"seeds": 0}, ("seeds",), {})
    wrong = copy.deepcopy(tiny_config)
    wrong["model"]["quantizer"]["num_codes"] = 0
    with pytest.raises(UserError, match=r"^model\.quantizer\.num_codes must be >= 1"):
        runs.checked(config, (), {"x": tiny_config, "y": wrong})


def test_budget_lists_the_training_of_each_stage():
    config = {
        "training": {"steps": 1050, "batch_size": 32},
        "prior_training": {"steps": 450, "batch_size": 64},
    }
    found = runs.budget(config, "training", "prior_training", "video_training")
    assert found == "1,050 steps of 32 + 450 steps of 64"
