"""A tiny sweep on digits, from its config to its page."""

import copy
import json

import numpy as np
import pytest

from vqvae_jax import pipeline
from vqvae_jax.contrib import studies
from vqvae_jax.report import figures
from vqvae_jax.runtime.errors import DivergedError, UserError


@pytest.fixture(scope="module")
def config(make_config, digits_dir):
    config = make_config("robustness", {"seeds": 2})
    base = config["base"]
    base["data"]["data_dir"] = digits_dir
    base["model"] |= {"units": 8, "residual_units": 8, "num_codes": 16, "dim": 4}
    base["training"] |= {"steps": 2, "log_every": 2, "checkpoint_every": 2}
    base["training"] |= {"init_batches": 1}
    config["vary"] = {"beta": [0.25, 2.0], "num_codes": [16, 8]}
    return config


@pytest.mark.slow
def test_each_setting_is_trained_once_and_compared(
    config, tmp_path, monkeypatch, capsys
):
    """The base serves both options; one seed of one value diverges."""
    run_one = pipeline.run
    trained = []

    def run(one, workdir, only):
        model = one["model"]
        trained.append((model["beta"], model["num_codes"], one["seed"]))
        if trained[-1] == (2.0, 16, 1):
            raise DivergedError("vqvae: loss is nan")
        run_one(one, workdir, only)

    monkeypatch.setattr(pipeline, "run", run)
    assert studies.is_suite(config)
    studies.run(config, str(tmp_path), command="python launch.py --x")
    settings = [(0.25, 16), (2.0, 16), (0.25, 8)]
    assert trained == [(*setting, seed) for seed in (0, 1) for setting in settings]

    results = json.loads((tmp_path / "results.json").read_text())
    assert results["budget"] == "2 steps of 64"
    assert results["base"] == {"beta": 0.25, "num_codes": 16}
    of_base = results["settings"]["beta"]["0.25"]
    assert of_base == results["settings"]["num_codes"]["16"]
    assert results["settings"]["beta"]["2.0"]["psnr_db"][1] is None
    bits = {
        value: np.array(figures_of["bits_per_dim_uniform_prior"])
        for value, figures_of in results["settings"]["num_codes"].items()
    }
    found = results["effects"]["num_codes"]["bits_per_dim_uniform_prior"]
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
        ({"vary": {"beta": []}}, r"^vary\.beta has no values"),
        ({"vary": {"num_codes": [0]}}, r"^model\.num_codes must be at least 1"),
        ({"seeds": 0}, r"^seeds must be at least 1, got 0"),
    ],
)
def test_a_mistake_is_told_before_anything_is_trained(
    config, change, message, tmp_path
):
    with pytest.raises(UserError, match=message):
        studies.run(copy.deepcopy(config) | change, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_figure_has_a_column_an_option_and_a_row_a_figure():
    seeds = {"PSNR": [20.0, 21.0], "perplexity": [3.0, 4.0]}
    measured = {"beta": {"0.1": seeds, "2.0": {name: [] for name in seeds}}}
    one = figures.settings(measured)
    two = figures.settings(measured | {"K": {"8": seeds}})
    assert (len(one.axes), len(two.axes)) == (2, 4)
    assert two.get_figwidth() > one.get_figwidth()
    assert two.get_figheight() == one.get_figheight()
