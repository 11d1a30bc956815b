"""A comparison of tiny systems on digits, of which one diverges."""

import copy
import json

import pytest

from vqvae_jax import pipeline, registry
from vqvae_jax.contrib.studies import comparison
from vqvae_jax.options import flatten
from vqvae_jax.runtime.errors import DivergedError, UserError

NETWORK = {"channels": 8, "residual_channels": 8}
SIZES = {
    "gan": {
        "latent_dim": 4,
        "generator": {"channels": 8},
        "discriminator": {"channels": 8},
    },
    "vae": {"encoder": NETWORK, "decoder": NETWORK, "likelihood": "gaussian"},
    "pixelcnn": {"network": {"layers": 1, "channels": 8}},
    "vqvae": {
        "encoder": NETWORK,
        "decoder": NETWORK,
        "quantizer": {"num_codes": 16, "dim": 4},
        "likelihood": "gaussian",
    },
}
STEPS = {"steps": 4, "log_every": 2, "checkpoint_every": 4}


@pytest.fixture(scope="module")
def config(make_config, digits_dir):
    changes = {
        f"systems.{kind}.model.{key}": value
        for kind, sizes in SIZES.items()
        for key, value in flatten(sizes).items()
    }
    changes |= flatten({"systems.vqvae.prior.network": {"layers": 1, "channels": 8}})
    changes |= flatten({"systems.vqvae.prior_training": STEPS})
    for kind in SIZES:
        changes[f"systems.{kind}.data.data_dir"] = digits_dir
        changes |= flatten({f"systems.{kind}.training": STEPS})
        drawn = {"num_samples": 6, "batch_size": 3}
        changes |= flatten({f"systems.{kind}.samples": drawn})
    return make_config("comparison", {"seeds": 2} | changes)


@pytest.mark.slow
def test_all_systems_and_seeds_are_in_one_table(config, tmp_path, monkeypatch, capsys):
    """The second seed of one system diverges, which its cell reports."""
    run_one = pipeline.run
    trained = []

    def run(system, workdir, only):
        trained.append((system["model"]["kind"], system["seed"]))
        if trained[-1] == ("vae", 1):
            raise DivergedError("vae: loss is nan")
        run_one(system, workdir, only)

    monkeypatch.setattr(pipeline, "run", run)
    assert registry.load(registry.STUDIES["systems"]) is comparison.run
    comparison.run(config, str(tmp_path), command="python launch.py --x")
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


def test_invalid_options_raise_before_training(config, tmp_path):
    wrong = copy.deepcopy(config)
    wrong["systems"]["vqvae"]["model"]["quantizer"]["num_codes"] = 0
    with pytest.raises(UserError, match=r"^model\.quantizer\.num_codes must be >= 1"):
        comparison.run(wrong, str(tmp_path / "run"))
    with pytest.raises(UserError, match=r"^seeds must be at least 1, got 0"):
        comparison.run(config | {"seeds": 0}, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_workdir_of_version_0_1_raises(config, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"is a run of vqvae_jax 0\.1") as caught:
        comparison.run(config, str(tmp_path))
    assert "\n" not in str(caught.value)
