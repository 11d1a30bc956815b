"""A tiny sweep over options on digits, and effects on hand-computed examples."""

import copy
import json
import math

import numpy as np
import pytest

from vqvae_jax import pipeline, registry
from vqvae_jax.contrib.studies import robustness
from vqvae_jax.contrib.studies.robustness import Effect, effect
from vqvae_jax.contrib.studies.runs import spread
from vqvae_jax.report import figures
from vqvae_jax.runtime.errors import DivergedError, UserError


@pytest.fixture(scope="module")
def config(make_config, digits_dir):
    config = make_config("robustness", {"seeds": 2})
    base = config["base"]
    base["data"]["data_dir"] = digits_dir
    for network in ("encoder", "decoder"):
        base["model"][network] |= {"channels": 8, "residual_channels": 8}
    base["model"]["quantizer"] |= {"num_codes": 16, "dim": 4}
    base["training"] |= {"steps": 2, "log_every": 2, "checkpoint_every": 2}
    base["training"] |= {"init_batches": 1}
    config["vary"] = {"quantizer": {"beta": [0.25, 2.0], "num_codes": [16, 8]}}
    return config


@pytest.mark.slow
def test_each_setting_is_trained_once_and_compared(
    config, tmp_path, monkeypatch, capsys
):
    """Both options share the runs of the base; one seed of one value diverges."""
    run_one = pipeline.run
    trained = []

    def run(one, workdir, only, *, brief):
        assert brief
        quantizer = one["model"]["quantizer"]
        trained.append((quantizer["beta"], quantizer["num_codes"], one["seed"]))
        if trained[-1] == (2.0, 16, 1):
            raise DivergedError("vqvae: loss is nan")
        run_one(one, workdir, only)

    monkeypatch.setattr(pipeline, "run", run)
    assert registry.load(registry.STUDIES["vary"]) is robustness.run
    robustness.run(config, str(tmp_path), command="python launch.py --x")
    settings = [(0.25, 16), (2.0, 16), (0.25, 8)]
    assert trained == [(*setting, seed) for seed in (0, 1) for setting in settings]

    results = json.loads((tmp_path / "results.json").read_text())
    assert results["budget"] == "2 steps of 64"
    assert results["base"] == {"quantizer.beta": 0.25, "quantizer.num_codes": 16}
    of_base = results["settings"]["quantizer.beta"]["0.25"]
    assert of_base == results["settings"]["quantizer.num_codes"]["16"]
    assert results["settings"]["quantizer.beta"]["2.0"]["psnr_db"][1] is None
    bits = {
        value: np.array(figures_of["bits_per_dim_uniform_prior"])
        for value, figures_of in results["settings"]["quantizer.num_codes"].items()
    }
    found = results["effects"]["quantizer.num_codes"]["bits_per_dim_uniform_prior"]
    assert found["across_values"] == pytest.approx(
        abs(bits["16"].mean() - bits["8"].mean())
    )
    assert found["across_seeds"] == pytest.approx(
        max(np.ptp(each) for each in bits.values())
    )
    page = (tmp_path / "report.html").read_text()
    assert page.count("<svg") == 1
    assert "<code>python launch.py --x</code>" in page
    assert "1 of 2 diverged" in page
    assert "0.25 (base)" in page
    assert "beta=2.0, seed 1: vqvae: loss is nan" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vary": {"betta": [1.0]}}, r"^vary\.betta is not an option of base\.model"),
        (
            {"vary": {"quantizer": {"betta": [1.0]}}},
            r"^vary\.quantizer\.betta is not an option of base\.model",
        ),
        (
            {"vary": {"quantizer": {"beta": []}}},
            r"^vary\.quantizer\.beta has no values",
        ),
        (
            {"vary": {"quantizer": {"num_codes": [0]}}},
            r"^model\.quantizer\.num_codes must be >= 1",
        ),
        ({"seeds": 0}, r"^seeds must be at least 1, got 0"),
    ],
)
def test_invalid_options_raise_before_training(config, change, message, tmp_path):
    with pytest.raises(UserError, match=message):
        robustness.run(copy.deepcopy(config) | change, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_options_of_the_same_name_are_trained_apart(config, tmp_path, monkeypatch):
    trained = []

    def run(one, workdir, only, *, brief):
        assert brief
        networks = (one["model"][name]["channels"] for name in ("encoder", "decoder"))
        trained.append(tuple(networks))
        raise DivergedError("vqvae: loss is nan")

    monkeypatch.setattr(pipeline, "run", run)
    vary = {name: {"channels": [8, 16]} for name in ("encoder", "decoder")}
    with pytest.raises(UserError, match="all 3 settings diverged"):
        robustness.run(config | {"seeds": 1, "vary": vary}, str(tmp_path))
    assert trained == [(8, 8), (16, 8), (8, 16)]


def test_a_workdir_of_version_0_1_raises(config, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"is a run of vqvae_jax 0\.1") as caught:
        robustness.run(config, str(tmp_path))
    assert "\n" not in str(caught.value)


def test_figure_has_a_column_per_option_and_a_row_per_metric():
    seeds = {"PSNR": [20.0, 21.0], "perplexity": [3.0, 4.0]}
    measured = {"beta": {"0.1": seeds, "2.0": {name: [] for name in seeds}}}
    one = figures.settings(measured)
    two = figures.settings(measured | {"K": {"8": seeds}})
    assert (len(one.axes), len(two.axes)) == (2, 4)
    assert two.get_figwidth() > one.get_figwidth()
    assert two.get_figheight() == one.get_figheight()


SETTINGS = {
    "0.1": [{"psnr_db": 20.0}, {"psnr_db": 22.0}],
    "0.5": [{"psnr_db": 23.0}, {"psnr_db": 23.5}],
    "2.0": [{"psnr_db": 19.0}, {}],
}


def test_spread_ignores_diverged_seeds():
    assert spread(SETTINGS["0.1"], "psnr_db") == (21.0, 20.0, 22.0)
    assert spread(SETTINGS["2.0"], "psnr_db") == (19.0, 19.0, 19.0)
    assert all(math.isnan(x) for x in spread([{}, {}], "psnr_db"))


def test_settings_without_the_metric_are_ignored():
    """A density has no bits/dim, unlike the other settings."""
    bits = {"psnr_db": 20.0, "bits_per_dim": 3.0}
    settings = {"gaussian": [bits, {}], "mse": [{"psnr_db": 21.0}] * 2}
    assert math.isnan(spread(settings["mse"], "bits_per_dim").mean)
    assert effect(settings, "bits_per_dim") == (0.0, 0.0)


def test_effect_is_range_of_means_and_largest_range_over_seeds():
    found = effect(SETTINGS, "psnr_db")
    assert found == pytest.approx(Effect(across_values=23.25 - 19.0, across_seeds=2.0))


def test_effect_is_nan_if_all_seeds_diverged():
    found = effect(SETTINGS | {"9.0": [{}]}, "psnr_db")
    assert found.across_values == pytest.approx(4.25)
    assert all(math.isnan(x) for x in effect({"9.0": [{}]}, "psnr_db"))
