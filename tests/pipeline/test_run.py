"""All stages on tiny digits: how they resume, and what they refuse."""

import json
import shutil

import jax
import numpy as np
import pytest

from vqvae_jax import pipeline
from vqvae_jax.runtime.errors import UserError
from vqvae_jax.workdir import Workdir, restore


def modification_times(workdir):
    return {p: p.stat().st_mtime_ns for p in workdir.rglob("*") if p.is_file()}


def test_a_finished_run_is_left_alone(finished_run, tiny_config, capsys):
    before = modification_times(finished_run)
    pipeline.run(tiny_config, str(finished_run))
    assert "nothing to do" in capsys.readouterr().out
    assert modification_times(finished_run) == before


def test_an_unfinished_stage_runs_again_with_all_that_read_from_it(
    copied_run, tiny_config
):
    expected = np.load(copied_run / "samples.npz")["images"]
    before = modification_times(copied_run)
    (copied_run / "samples.npz").unlink()
    pipeline.run(tiny_config, str(copied_run))
    after = modification_times(copied_run)
    np.testing.assert_array_equal(
        np.load(copied_run / "samples.npz")["images"], expected
    )
    changed = {
        p.relative_to(copied_run).parts[0] for p in after if before.get(p) != after[p]
    }
    assert changed == {
        "config.json",
        "samples",
        "samples.npz",
        "results.json",
        "test_bits.npz",
        "report.html",
    }


def test_training_is_finished_where_its_mark_is(copied_run):
    """Not where some step is: patience may end it at any."""
    for stage in ("vqvae", "prior"):
        checkpoints = copied_run / "checkpoints" / stage
        assert pipeline.stages_of("vqvae")[stage].is_done(Workdir(copied_run))
        (checkpoints / "20").rename(checkpoints / "10000")
        assert pipeline.stages_of("vqvae")[stage].is_done(Workdir(copied_run))
        shutil.rmtree(checkpoints)
        assert not pipeline.stages_of("vqvae")[stage].is_done(Workdir(copied_run))


def test_a_changed_config_is_refused_with_its_keys(copied_run, tiny_config):
    changed = json.loads(json.dumps(tiny_config))
    changed["model"]["beta"] = 0.5
    changed["seed"] = 7
    with pytest.raises(UserError, match=r"model\.beta: 0\.25 there, 0\.5 now; seed"):
        pipeline.run(changed, str(copied_run))
    moved = json.loads(json.dumps(tiny_config))
    moved["data"]["data_dir"] = "elsewhere"
    moved["training"]["profile_steps"] = 5
    pipeline.run(moved, str(copied_run))


def test_stages_in_the_wrong_order_say_what_is_missing(tiny_config, tmp_path):
    with pytest.raises(UserError, match=r"no checkpoint .*train this stage first"):
        pipeline.run(tiny_config, str(tmp_path / "run"), ["codes"])
    with pytest.raises(UserError, match="'vqave' does not exist; there are vqvae"):
        pipeline.run(tiny_config, str(tmp_path / "other"), ["vqave"])
    assert not (tmp_path / "other").exists()


OTHER_KINDS = {
    "vae": {"latent_dim": 4, "likelihood": "gaussian"},
    "vimco": {"num_codes": 8, "dim": 4, "num_samples": 3, "likelihood": "gaussian"},
    "pixelcnn": {"layers": 1, "units": 8, "kernel_size": 3},
    "gan": {"latent_dim": 4, "units": 8, "stages": 1},
}


def config_of(kind, tiny_config):
    """The config of a tiny model of another kind."""
    config = json.loads(json.dumps(tiny_config))
    del config["prior"], config["prior_training"]
    encoder = {"stages": 1, "units": 8, "residual_units": 8}
    sizes = encoder if kind in ("vae", "vimco") else {}
    config["model"] = {"kind": kind, **sizes, **OTHER_KINDS[kind]}
    config["training"] |= {"steps": 4, "log_every": 2, "checkpoint_every": 4}
    config["samples"] |= {"num_samples": 6, "batch_size": 3, "temperature": 1.0}
    config["evaluation"] |= {"classify_samples": False}
    return config


@pytest.mark.slow
def test_pixels_are_drawn_at_the_configs_temperature(tiny_config, tmp_path):
    config = config_of("pixelcnn", tiny_config)
    config["samples"] |= {"temperature": 1e-4}
    pipeline.run(config, str(tmp_path / "run"), ["pixelcnn", "samples"])
    with np.load(tmp_path / "run" / "samples.npz") as samples:
        assert len(np.unique(samples["images"], axis=0)) == 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", OTHER_KINDS)
def test_a_model_without_a_prior_runs_through_its_stages(kind, tiny_config, tmp_path):
    config = config_of(kind, tiny_config)
    encodes = kind in ("vae", "vimco")
    pipeline.run(config, str(tmp_path / "run"))
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert {"test_loss", "train_steps"} <= results.keys()
    assert ("test_bits_per_dim" in results) == (kind != "gan")
    assert results["samples_per_second"] > 0
    assert ("test_psnr_db" in results) == encodes
    page = (tmp_path / "run" / "report.html").read_text()
    assert ("Reconstructions" in page) == encodes
    with np.load(tmp_path / "run" / "samples.npz") as samples:
        assert samples["images"].shape == (6, 8, 8, 1)
        assert len(np.unique(samples["images"])) > 5
    model, params = restore(tmp_path / "run")
    assert model.sample(params, jax.random.key(0), num_samples=2).shape == (2, 8, 8, 1)
    with pytest.raises(UserError, match=f"'codes' does not exist.* {kind}, sa"):
        pipeline.run(config, str(tmp_path / "run"), ["codes"])
