"""Training that starts from the parameters of a trained model."""

import copy
import json

import jax
import numpy as np
import pytest

import vqvae_jax
from vqvae_jax import pipeline
from vqvae_jax.runtime.errors import UserError
from vqvae_jax.workdir import Workdir


def assert_equal(first, second):
    jax.tree.map(np.testing.assert_array_equal, first, second)


@pytest.fixture
def started(tiny_config, finished_run):
    """A config whose model and prior keep the parameters of a finished run."""
    config = copy.deepcopy(tiny_config)
    for section in ("training", "prior_training"):
        config[section] |= {"steps": 0, "init_from": str(finished_run)}
    return config


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_zero_steps_keep_the_model_and_its_results(
    started, finished_run, tmp_path, decay
):
    started["training"]["params_ema_decay"] = decay
    pipeline.run(started, str(tmp_path / "run"))
    for stage in ("vqvae", "prior"):
        model, params = vqvae_jax.restore(tmp_path / "run", stage)
        expected_model, expected = vqvae_jax.restore(finished_run, stage)
        assert model == expected_model
        assert_equal(params, expected)
    results, before = (
        Workdir(path).read_results() for path in (tmp_path / "run", finished_run)
    )
    assert results["train_steps"] == results["prior_best_step"] == 0
    assert "train_images_per_second" not in results
    for name in ("test_psnr_db", "prior_bits_per_code", "codebook_perplexity"):
        assert results[name] == before[name]


def test_steps_continue_from_the_parameters(tiny_config, finished_run, tmp_path):
    """With a learning rate that rounds to nothing, one step changes nothing."""
    config = copy.deepcopy(tiny_config)
    config["model"]["quantizer"]["codebook_update"] = "loss"
    config["training"] |= {
        "steps": 1,
        "learning_rate": 1e-30,
        "init_from": str(finished_run),
    }
    pipeline.run(config, str(tmp_path / "run"), ["vqvae"])
    params = vqvae_jax.restore(tmp_path / "run")[1]
    expected = vqvae_jax.restore(finished_run)[1]
    assert_equal(params.encoder, expected.encoder)
    assert_equal(params.decoder, expected.decoder)
    assert_equal(params.quantizer.embeddings, expected.quantizer.embeddings)


def test_a_prior_alone_on_the_codes_of_other_images(tiny_config, started, tmp_path):
    """The VQ-VAE is kept; the prior is trained anew."""
    started["prior_training"] = tiny_config["prior_training"]
    pipeline.run(started, str(tmp_path / "run"), ["vqvae", "codes", "prior"])
    assert vqvae_jax.restore(tmp_path / "run", "prior")


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        (
            "training",
            "model.quantizer.num_codes",
            32,
            r"training\.init_from=.*: the vqvae's sizes differ \(.* has shape .*\)",
        ),
        (
            "prior_training",
            "prior.network.channels",
            12,
            r"prior_training\.init_from=.*: the prior's sizes differ",
        ),
        ("training", "training.init_from", "nothing", "init_from=nothing: nothing doe"),
        ("training", "training.init_from", "", "steps must be >= 1 without"),
    ],
)
def test_what_does_not_fit_is_refused_before_any_work(
    tiny_config, finished_run, tmp_path, section, key, value, message
):
    config = copy.deepcopy(tiny_config)
    config[section] |= {"init_from": str(finished_run), "steps": 0}
    *path, last = key.split(".")
    part = config
    for name in path:
        part = part[name]
    part[last] = value
    with pytest.raises(UserError, match=message):
        pipeline.run(config, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_model_of_another_kind_is_refused(tiny_config, finished_run, tmp_path):
    config = copy.deepcopy(tiny_config)
    # An image model without codes.
    networks = {name: config["model"][name] for name in ("encoder", "decoder")}
    config["model"] = {"kind": "vae", **networks}
    for name in ("prior", "prior_training"):
        del config[name]
    config["evaluation"]["classify_samples"] = False
    config["samples"] = {}
    config["training"]["init_from"] = str(finished_run)
    with pytest.raises(UserError, match=r"it has no vae; it has vqvae, prior"):
        pipeline.run(config, str(tmp_path / "run"))


def test_a_run_of_before_this_option_resumes(tiny_config, copied_run, capsys):
    """The config of a run lacks options that were added to the library since."""
    path = copied_run / "config.json"
    config = json.loads(path.read_text())
    for section in ("training", "prior_training"):
        del config[section]["init_from"]
    path.write_text(json.dumps(config))
    pipeline.run(tiny_config, str(copied_run))
    assert "nothing to do" in capsys.readouterr().out
    changed = copy.deepcopy(tiny_config)
    changed["training"]["init_from"] = "digits"
    with pytest.raises(UserError, match=r"training.init_from: '' there, 'digits' now"):
        pipeline.run(changed, str(copied_run))
