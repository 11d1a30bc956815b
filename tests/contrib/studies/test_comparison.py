"""A comparison of tiny systems on digits, whole and with one that diverges."""

import copy
import json

import pytest

from vqvae_jax import pipeline
from vqvae_jax.contrib import studies
from vqvae_jax.runtime.errors import DivergedError, UserError


@pytest.fixture(scope="module")
def config(make_config, digits_dir):
    config = make_config("comparison", {"seeds": 2})
    sizes = {
        "gan": {"latent_dim": 4, "units": 8},
        "vae": {"units": 8, "residual_units": 8, "likelihood": "gaussian"},
        "pixelcnn": {"layers": 1, "units": 8},
        "vqvae": {
            "units": 8,
            "residual_units": 8,
            "num_codes": 16,
            "dim": 4,
            "likelihood": "gaussian",
        },
    }
    for kind, system in config["systems"].items():
        system["model"] |= sizes[kind]
        system["data"]["data_dir"] = digits_dir
        for name in ("training", "prior_training"):
            if name in system:
                system[name] |= {"steps": 4, "log_every": 2, "checkpoint_every": 4}
        system["samples"] |= {"num_samples": 6, "batch_size": 3}
    config["systems"]["vqvae"]["prior"] |= {"layers": 1, "units": 8}
    return config


@pytest.mark.slow
def test_all_systems_and_seeds_end_in_one_table(config, tmp_path, monkeypatch, capsys):
    """Once; the second seed of one of them diverges, and is told in its cell."""
    run_one = pipeline.run
    trained = []

    def run(system, workdir, only):
        trained.append((system["model"]["kind"], system["seed"]))
        if trained[-1] == ("vae", 1):
            raise DivergedError("vae: loss is nan")
        run_one(system, workdir, only)

    monkeypatch.setattr(pipeline, "run", run)
    assert studies.is_suite(config)
    studies.run(config, str(tmp_path), command="python launch.py --x")
    kinds = ("gan", "vae", "pixelcnn", "vqvae")
    assert trained == [(kind, seed) for seed in (0, 1) for kind in kinds]
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["seeds"] == 2
    assert results["budget"]["vqvae"] == "4 steps of 32 + 4 steps of 32"
    table = results["table"]
    assert all(set(cells) == set(kinds) for cells in table.values())
    assert table["stable training"]["vae"]["diverged"] == [1]
    assert table["stable training"]["gan"]["diverged"] == [0]
    for kind in ("pixelcnn", "vqvae"):
        measured = [
            json.loads((tmp_path / kind / str(seed) / "results.json").read_text())
            for seed in (0, 1)
        ]
        name = "test_bits_per_dim" + ("_learned_prior" if kind == "vqvae" else "")
        cell = table["exact likelihood p(x)"][kind]
        assert cell[name] == [result[name] for result in measured]
    page = (tmp_path / "report.html").read_text()
    # Real images, and samples of each system.
    assert page.count("data:image/png;base64,") == 5
    assert "1 of 2 seeds diverged" in page
    assert "<code>python launch.py --x</code>" in page
    assert "vae, seed 1: vae: loss is nan" in capsys.readouterr().out


def test_a_mistake_in_one_system_is_told_before_any_is_trained(config, tmp_path):
    wrong = copy.deepcopy(config)
    wrong["systems"]["vqvae"]["model"]["num_codes"] = 0
    with pytest.raises(UserError, match=r"^model\.num_codes must be at least 1"):
        studies.run(wrong, str(tmp_path / "run"))
    with pytest.raises(UserError, match=r"^seeds must be at least 1, got 0"):
        studies.run(config | {"seeds": 0}, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()
