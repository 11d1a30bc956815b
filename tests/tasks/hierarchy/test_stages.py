"""The stages of a second VQ-VAE, their errors, and its portable file."""

import functools
import json
import shutil

import jax
import numpy as np
import pytest
from run_comparison import assert_same_run, run_in_two_processes

import vqvae_jax
from vqvae_jax import pipeline
from vqvae_jax.pretrained.loading import find
from vqvae_jax.runtime.errors import UserError
from vqvae_jax.tasks.hierarchy.stages import frequencies
from vqvae_jax.workdir import Workdir

STAGES = ("hierarchy", "hierarchy_vae", "hierarchy_without_latents")


@pytest.mark.slow
def test_stages_write_samples_and_reconstructions(hierarchy_run):
    workdir = Workdir(hierarchy_run)
    model, params = workdir.restore()
    with np.load(hierarchy_run / "samples.npz") as samples:
        images, codes, global_codes = (
            samples[name] for name in ("images", "codes", "global_codes")
        )
    assert global_codes.shape == (6, 2)
    np.testing.assert_array_equal(jax.jit(model.decode)(params, codes), images)
    with np.load(hierarchy_run / "reconstructions.npz") as drawn:
        frames, first = drawn["frames"], drawn["first_stage"]
        assert drawn["hierarchy"].shape == drawn["hierarchy_vae"].shape == first.shape
    assert frames[0] == 0
    source = workdir.codes("test")
    assert frames[-1] == len(source) - 1
    codes = np.stack([source[int(i)]["codes"] for i in frames])
    np.testing.assert_array_equal(jax.jit(model.decode)(params, codes), first)


@pytest.mark.slow
def test_restores_each_model_by_its_stage(hierarchy_run):
    workdir = Workdir(hierarchy_run)
    models = [workdir.restore(stage)[0] for stage in STAGES]
    assert [type(model).__name__ for model in models] == [
        "Hierarchy",
        "HierarchyVAE",
        "Prior",
    ]
    assert {model.grid for model in models} == {(4, 4, 1)}
    with pytest.raises(UserError, match=r"no prior in .*: its vqvae is follow"):
        workdir.restore("prior")


@pytest.mark.slow
def test_codes_of_another_vqvae_raise(hierarchy_run, hierarchy_config, tmp_path):
    """In the training of each model, and in every later stage."""
    run = shutil.copytree(hierarchy_run, tmp_path / "run")
    workdir = Workdir(run)
    path = workdir.codes_metadata("hierarchy")
    workdir.write_json(path, workdir.read_json(path) | {"fingerprint": "another"})
    message = "codes of another VQ-VAE"
    for stage in STAGES:
        (run / "checkpoints" / stage / "finished.json").unlink()
        with pytest.raises(UserError, match=message):
            pipeline.run(hierarchy_config, str(run), [stage])
    for stage, file in (
        ("reconstructions", "reconstructions.npz"),
        ("samples", "samples.npz"),
        ("evaluate", "results.json"),
    ):
        (run / file).unlink()
        with pytest.raises(UserError, match=message):
            pipeline.run(hierarchy_config, str(run), [stage])


def test_training_without_codes_raises(hierarchy_config, tmp_path):
    with pytest.raises(UserError, match="there are no finished codes in"):
        pipeline.run(hierarchy_config, str(tmp_path / "run"), ["hierarchy"])


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("encoder.num_downsamples", 3, "=3 halves a grid of 4x4 codes"),
        ("to_map.num_downsamples", 3, "=3 halves a grid of 4x4 codes"),
        ("quantizer.num_codebooks", 0, " must be >= 1, got 0"),
        ("quantizer.num_codes", 1, " must be >= 2, got 1"),
        ("pixelcnn.kernel_size", 2, " must be odd"),
        ("grid", (4, 4, 1), " is not an option"),
    ],
)
def test_invalid_options_raise(hierarchy_config, tmp_path, key, value, message):
    config = json.loads(json.dumps(hierarchy_config))
    section, _, name = f"hierarchy.{key}".rpartition(".")
    functools.reduce(dict.get, section.split("."), config)[name] = value
    with pytest.raises(UserError, match=rf"^hierarchy\.{key}{message}"):
        pipeline.run(config, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_two_second_stages_raise(hierarchy_config, tiny_config, tmp_path):
    both = {**hierarchy_config, "prior": tiny_config["prior"]}
    with pytest.raises(UserError, match="prior and hierarchy are both in the config"):
        pipeline.run(both, str(tmp_path / "run"))


def test_frequencies_of_each_latent():
    found = frequencies(np.array([[0, 2], [0, 1], [1, 2], [0, 2]]), num_codes=3)
    np.testing.assert_array_equal(found, [[0.75, 0.25, 0], [0, 0.25, 0.75]])


@pytest.mark.slow
def test_two_processes_equal_one(
    hierarchy_config, hierarchy_run, run_processes, tmp_path
):
    workdir = tmp_path / "run"
    # The VQ-VAE and its codes are those of another run.
    for part in ("codes", "checkpoints/vqvae"):
        shutil.copytree(hierarchy_run / part, workdir / part)
    lines = (hierarchy_run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (workdir / "metrics.jsonl").write_text(
        "".join(line for line in lines if json.loads(line)["stage"] == "vqvae")
    )
    run_in_two_processes(run_processes, hierarchy_config, workdir)
    # Adam divides rounding errors of a gradient near its epsilon by their size.
    assert_same_run(workdir, hierarchy_run, atol=5e-5)


@pytest.mark.slow
def test_a_file_has_all_three_models(hierarchy_run, tmp_path):
    path = vqvae_jax.save_pretrained(hierarchy_run, tmp_path)
    stages = ("hierarchy", "hierarchy_vae", "hierarchy_without_latents")
    for stage in stages:
        model, params = vqvae_jax.restore(path, stage)
        expected, expected_params = vqvae_jax.restore(hierarchy_run, stage)
        assert model == expected
        assert jax.tree.structure(params) == jax.tree.structure(expected_params)
        jax.tree.map(np.testing.assert_array_equal, params, expected_params)
    assert tuple(find(path).metadata.models) == stages
