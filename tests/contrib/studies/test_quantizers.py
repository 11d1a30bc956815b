"""A tiny study of quantizers on digits, and the errors of its config."""

import copy
import json

import pytest

from vqvae_jax import pipeline, registry
from vqvae_jax.contrib.studies import quantizers
from vqvae_jax.experiment import Experiment
from vqvae_jax.runtime.errors import DivergedError, UserError


@pytest.fixture(scope="module")
def config(make_config, tiny_config):
    """Two sizes; one of the second one's quantizers diverges with one seed."""
    config = make_config("quantizers", {"seeds": 2})
    base = copy.deepcopy(tiny_config)
    base["model"]["quantizer"]["dim"] = 6
    sections = {
        "8": {
            "residual": {
                "kind": "residual",
                "levels": 3,
                "quantizer": {"num_codes": 2, "dim": 6},
            },
            "fsq": {"kind": "fsq", "levels": (4, 2)},
        },
        "16": {
            "vq": {"kind": "vq", "num_codes": 16},
            "lfq": {"kind": "lfq", "bits": 4},
        },
    }
    return config | {"base": base, "quantizers": sections}


@pytest.mark.slow
def test_each_quantizer_is_trained_and_measured(config, tmp_path, monkeypatch, capsys):
    run_one = pipeline.run
    trained = []

    def run(one, workdir, only, *, brief):
        assert brief
        quantizer = one["model"]["quantizer"]
        trained.append((quantizer["kind"], one["seed"]))
        if trained[-1] == ("lfq", 1):
            raise DivergedError("vqvae: loss is nan")
        run_one(one, workdir, only)

    monkeypatch.setattr(pipeline, "run", run)
    assert registry.load(registry.STUDIES["quantizers"]) is quantizers.run
    quantizers.run(config, str(tmp_path), command="python launch.py --x")
    kinds = ("residual", "fsq", "vq", "lfq")
    assert trained == [(kind, seed) for seed in (0, 1) for kind in kinds]

    found = json.loads((tmp_path / "results.json").read_text())
    assert list(found["sizes"]) == ["8", "16"]
    residual, fsq = (found["sizes"]["8"][name] for name in ("residual", "fsq"))
    for results, name in ((residual, "residual"), (fsq, "fsq")):
        for seed, values in enumerate(results):
            run_of = json.loads(
                (tmp_path / "8" / name / str(seed) / "results.json").read_text()
            )
            # 4x4 vectors of 3 bits for 64 values.
            bits = run_of["test_rate_bits_per_dim_uniform_prior"]
            assert bits == pytest.approx(16 * 3 / 64)
            assert values["test_psnr_db"] == run_of["test_psnr_db"]
            share = run_of["codebook_active_codes"] / (6 if name == "residual" else 8)
            assert values["codes_in_use"] == pytest.approx(100 * share)
            assert values["quantizer_step_ms"] > 0
    assert found["sizes"]["16"]["lfq"][1] == {}
    markdown = (tmp_path / "table.md").read_text()
    assert markdown.count("\n| --- |") == 2
    assert "1 of 2 diverged" in markdown
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "report.html").read_text()
    assert "<code>python launch.py --x</code>" in page
    assert page.count("<svg") == 1
    assert "lfq, seed 1: vqvae: loss is nan" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quantizers": {}}, "^quantizers is empty"),
        ({"quantizers": {"x": {}}}, r"^quantizers\.x must be a number of codes K"),
        ({"names": ("vq", "fsk")}, "^names must be one of residual, fsq, vq, lfq, got"),
        (
            {"quantizers": {"8": {"vq": {"kind": "vq", "num_codes": 16}}}},
            r"^quantizers\.8\.vq has 4\.00 bits for a vector, the others of K = 8 have",
        ),
        (
            {"quantizers": {"8": {"vq": {"kind": "vk"}}}},
            r"quantizer\.kind must be one of vq, residual",
        ),
        (
            {
                "quantizers": {
                    "8": {"fsq": {"kind": "fsq", "levels": (4, 2), "dim": 7}},
                    "2": {"vq": {"num_codes": 2}},
                }
            },
            r"^quantizers\.8\.fsq takes 7 features, the first quantizer 6",
        ),
        ({"seeds": 0}, "^seeds must be at least 1, got 0"),
    ],
)
def test_invalid_configs_raise_before_training(config, change, message, tmp_path):
    with pytest.raises(UserError, match=message):
        quantizers.run(config | change, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_names_select_quantizers(config):
    selected = quantizers._selected(config | {"names": ("fsq",)})
    assert selected == {"8": {"fsq": config["quantizers"]["8"]["fsq"]}}


@pytest.mark.parametrize("variant", ["", "cifar_small", "cifar"])
def test_quantizers_have_the_bits_and_features_of_their_size(variant, make_config):
    config = make_config(f"quantizers:{variant}", {})
    features = config["base"]["model"]["quantizer"]["dim"]
    for size, sections in config["quantizers"].items():
        for name, section in sections.items():
            changed = quantizers.with_quantizer(config["base"], section)
            quantizer = Experiment.from_config(changed).model.quantizer
            assert 2**quantizer.bits == pytest.approx(int(size)), name
            assert quantizer.features == features, name
