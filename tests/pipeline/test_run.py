"""All stages on tiny digits: their order, how they resume, and invalid input."""

import errno
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from tiny_models import MODELS

import vqvae_jax
from vqvae_jax import pipeline, registry
from vqvae_jax.experiment import Experiment, default_config
from vqvae_jax.runtime.errors import UserError
from vqvae_jax.training import loop
from vqvae_jax.workdir import Workdir

SECOND_STAGES = [
    name
    for name in registry.MODELS["vqvae"].second_stages
    if registry.is_available(registry.SECOND_STAGES[name].stage)
]
OTHER_KINDS = ("vae", "vimco", "pixelcnn", "gan")


def stages_of(config):
    experiment = Experiment.from_config(config)
    return registry.load(experiment.spec.stages)(experiment)


def default_stages(kind, second_stage=None):
    config = default_config(kind, second_stage)
    config["data"]["name"] = "digits"
    return list(stages_of(config))


@pytest.mark.parametrize("second_stage", SECOND_STAGES)
def test_stages_of_a_vqvae_and_its_second_stage(second_stage):
    spec = registry.SECOND_STAGES[second_stage]
    between = [*spec.variants, *registry.load(spec.stage).stages]
    expected = ["vqvae", "codes", *between, "samples", "evaluate", "report"]
    assert default_stages("vqvae", second_stage) == expected


@pytest.mark.parametrize("kind", OTHER_KINDS)
def test_stages_of_a_model_without_second_stage(kind):
    assert default_stages(kind) == [kind, "samples", "evaluate", "report"]


def modification_times(workdir):
    return {p: p.stat().st_mtime_ns for p in workdir.rglob("*") if p.is_file()}


def test_a_finished_run_is_not_changed(finished_run, tiny_config, capsys):
    before = modification_times(finished_run)
    pipeline.run(tiny_config, str(finished_run))
    assert "nothing to do" in capsys.readouterr().out
    assert modification_times(finished_run) == before


@pytest.mark.parametrize("content", ['{"test_psnr_db": "x"}', "[]", "{"])
def test_damaged_results_of_a_finished_run_are_one_line(
    tiny_config, copied_run, content
):
    (copied_run / "results.json").write_text(content)
    with pytest.raises(UserError, match=r"results\.json"):
        pipeline.run(tiny_config, str(copied_run))


def test_an_unfinished_stage_and_all_later_ones_run_again(copied_run, tiny_config):
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


def test_training_is_finished_once_it_is_marked(copied_run, tiny_config):
    """The last step does not decide: early stopping can end training at any step."""
    stages, workdir = stages_of(tiny_config), Workdir(copied_run)
    for stage in ("vqvae", "prior"):
        checkpoints = copied_run / "checkpoints" / stage
        assert stages[stage].is_done(workdir)
        (checkpoints / "20").rename(checkpoints / "10000")
        assert stages[stage].is_done(workdir)
        shutil.rmtree(checkpoints)
        assert not stages[stage].is_done(workdir)


def test_a_changed_config_raises_with_its_keys(copied_run, tiny_config):
    changed = json.loads(json.dumps(tiny_config))
    changed["model"]["quantizer"]["beta"] = 0.5
    changed["seed"] = 7
    differences = r"model\.quantizer\.beta: 0\.25 there, 0\.5 now; seed"
    with pytest.raises(UserError, match=differences):
        pipeline.run(changed, str(copied_run))
    moved = json.loads(json.dumps(tiny_config))
    moved["data"]["data_dir"] = "elsewhere"
    moved["training"]["profile_steps"] = 5
    pipeline.run(moved, str(copied_run))


def test_missing_results_of_earlier_stages_and_unknown_stages_raise(
    tiny_config, tmp_path
):
    with pytest.raises(UserError, match=r"no checkpoint .*train this stage first"):
        pipeline.run(tiny_config, str(tmp_path / "run"), ["codes"])
    with pytest.raises(UserError, match="'vqave' does not exist; there are vqvae"):
        pipeline.run(tiny_config, str(tmp_path / "other"), ["vqave"])
    assert not (tmp_path / "other").exists()


def too_large(config):
    """Embeddings of 16 GB, Adam's two moments, gradients, and counts of codes."""
    config["model"]["quantizer"]["num_codes"] = 10**9


def too_large_prior(config):
    config["prior"]["network"]["channels"] = 2**20


def without_data(config):
    config["data"] |= {"source": "folder", "data_dir": "nowhere"}


REFUSED = [
    (too_large, r"optimiser state of vqvae take 72\d{9} bytes"),
    (without_data, "is not a folder"),
]


@pytest.mark.parametrize(("change", "message"), REFUSED)
def test_a_refused_run_leaves_nothing(tiny_config, tmp_path, change, message):
    changed = json.loads(json.dumps(tiny_config))
    change(changed)
    with pytest.raises(UserError, match=message):
        pipeline.run(changed, str(tmp_path / "new" / "run"))
    assert not list(tmp_path.iterdir())
    (tmp_path / "run" / "mine").mkdir(parents=True)
    with pytest.raises(UserError, match=message):
        pipeline.run(changed, str(tmp_path / "run"), command="python launch.py")
    assert list(tmp_path.rglob("*")) == [tmp_path / "run", tmp_path / "run" / "mine"]


@pytest.fixture
def failing_step(monkeypatch):
    """A training step that needs too much memory."""

    def make_train_step(*args, **kwargs):
        def train_step(state, batch):
            raise MemoryError("use a smaller batch")

        return train_step

    monkeypatch.setattr(loop, "make_train_step", make_train_step)


def test_a_failed_first_step_leaves_nothing(tiny_config, tmp_path, failing_step):
    """The logs are open then; another config is accepted afterwards."""
    with pytest.raises(MemoryError):
        pipeline.run(tiny_config, str(tmp_path / "run"))
    assert not list(tmp_path.iterdir())
    (tmp_path / "run" / "tensorboard").mkdir(parents=True)
    (tmp_path / "run" / "tensorboard" / "mine").touch()
    with pytest.raises(MemoryError):
        pipeline.run(tiny_config, str(tmp_path / "run"))
    assert not (tmp_path / "run" / "config.json").exists()
    assert (tmp_path / "run" / "tensorboard" / "mine").exists()


def test_an_error_of_the_removal_does_not_hide_the_first_one(
    tiny_config, tmp_path, failing_step, monkeypatch
):
    original = Path.unlink

    def refuse(path, **kwargs):
        if path.name in ("config.json", ".lock"):
            raise OSError(errno.EROFS, "Read-only file system")
        original(path, **kwargs)

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(MemoryError):
        pipeline.run(tiny_config, str(tmp_path / "run"))


def test_a_refused_run_changes_no_other_run(copied_run, tiny_config):
    """Here the prior does not fit into memory, after the first stage."""
    (copied_run / ".lock").unlink()
    shutil.rmtree(copied_run / "checkpoints" / "prior")
    changed = json.loads(json.dumps(tiny_config))
    too_large_prior(changed)
    values = json.loads((copied_run / "config.json").read_text())
    values["prior"] = changed["prior"]
    (copied_run / "config.json").write_text(json.dumps(values))
    before = set(copied_run.rglob("*"))
    with pytest.raises(UserError, match="optimiser state of prior take"):
        pipeline.run(changed, str(copied_run))
    assert before <= set(copied_run.rglob("*"))
    assert not (copied_run / ".lock").exists()


def test_results_are_flat_numbers_with_units_in_their_names(finished_run):
    results = json.loads((finished_run / "results.json").read_text())
    expected = {
        "test_psnr_db",
        "codebook_perplexity",
        "codebook_active_codes",
        "prior_bits_per_code",
        "prior_bits_per_code_given_class",
        "prior_bits_per_code_given_class_validation",
        "prior_bits_per_code_given_class_train",
        "marginal_bits_per_code",
        "sample_class_accuracy",
        "train_images_per_second",
    }
    assert expected <= results.keys()
    assert all(isinstance(v, int | float) for v in results.values())
    assert np.isfinite(list(results.values())).all()
    # An image has 8x8 bytes and 4x4 codes of 16.
    assert (results["image_bits"], results["code_bits"]) == (512, 64)
    assert "test_bits_per_dim_uniform_prior" not in results


def parameters_of(workdir):
    return [vqvae_jax.restore(workdir, stage)[1] for stage in ("vqvae", "prior")]


@pytest.mark.slow
def test_evaluation_changes_no_checkpoint(copied_run, tiny_config):
    """[24]"""
    before = jax.tree.leaves(parameters_of(copied_run))
    (copied_run / "results.json").unlink()
    pipeline.run(tiny_config, str(copied_run))
    after = jax.tree.leaves(parameters_of(copied_run))
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)


def config_of(kind, tiny_config):
    """Return the config of a tiny model without a second stage."""
    config = json.loads(json.dumps(tiny_config))
    del config["prior"], config["prior_training"]
    config["model"] = {"kind": kind, **MODELS[kind]}
    config["training"] |= {"steps": 4, "log_every": 2, "checkpoint_every": 4}
    config["samples"] |= {"num_samples": 6, "batch_size": 3, "temperature": 1.0}
    config["evaluation"] |= {"classify_samples": False}
    return config


@pytest.mark.slow
def test_pixels_are_drawn_at_the_temperature_of_the_config(tiny_config, tmp_path):
    config = config_of("pixelcnn", tiny_config)
    config["samples"] |= {"temperature": 1e-4}
    pipeline.run(config, str(tmp_path / "run"), ["pixelcnn", "samples"])
    with np.load(tmp_path / "run" / "samples.npz") as samples:
        assert len(np.unique(samples["images"], axis=0)) == 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", OTHER_KINDS)
def test_all_stages_of_a_model_without_second_stage(kind, tiny_config, tmp_path):
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
    model, params = vqvae_jax.restore(tmp_path / "run")
    assert model.sample(params, jax.random.key(0), num_samples=2).shape == (2, 8, 8, 1)
    with pytest.raises(UserError, match=f"'codes' does not exist.* {kind}, sa"):
        pipeline.run(config, str(tmp_path / "run"), ["codes"])


@pytest.mark.slow
def test_data_on_the_device_and_several_steps_per_call_change_no_result(
    finished_run, tiny_config, tmp_path
):
    """Parameters of both models, and with them all results, are equal bit for bit."""
    config = json.loads(json.dumps(tiny_config))
    config["data"]["on_device"] = True
    for section in ("training", "prior_training"):
        config[section]["steps_per_call"] = 5
    pipeline.run(config, str(tmp_path), ["vqvae", "codes", "prior"])
    for name in (None, "prior"):
        (_, found), (_, expected) = (
            vqvae_jax.restore(workdir, *filter(None, [name]))
            for workdir in (tmp_path, finished_run)
        )
        jax.tree.map(np.testing.assert_array_equal, found, expected)
