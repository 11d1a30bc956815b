"""A second VQ-VAE after a first: its stages, and what they refuse."""

import json
import shutil

import jax
import numpy as np
import pytest

from vqvae_jax import pipeline
from vqvae_jax.runtime.errors import UserError
from vqvae_jax.tasks.hierarchy.stages import frequencies
from vqvae_jax.workdir import Workdir, restore, restore_second

STAGES = ("hierarchy", "hierarchy_vae", "hierarchy_without_latents")


@pytest.mark.slow
def test_every_stage_leaves_its_result(hierarchy_run):
    model, params = restore(hierarchy_run)
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
    assert frames[-1] == len(Workdir(hierarchy_run).codes("test")) - 1
    source = Workdir(hierarchy_run).codes("test")
    codes = np.stack([source[int(i)]["codes"] for i in frames])
    np.testing.assert_array_equal(jax.jit(model.decode)(params, codes), first)


@pytest.mark.slow
def test_restores_each_model_by_its_stage(hierarchy_run):
    models = [restore_second(hierarchy_run, stage)[0] for stage in STAGES]
    assert [type(model).__name__ for model in models] == [
        "Hierarchy",
        "HierarchyVAE",
        "Prior",
    ]
    assert {model.grid for model in models} == {(4, 4, 1)}
    with pytest.raises(UserError, match=r"no prior in .*: its vqvae is follow"):
        restore_second(hierarchy_run, "prior")


@pytest.mark.slow
def test_codes_of_another_vqvae_are_refused(hierarchy_run, hierarchy_config, tmp_path):
    """In training each of the three, and before anything is drawn or measured."""
    run = shutil.copytree(hierarchy_run, tmp_path / "run")
    place = Workdir(run)
    facts = place.facts("hierarchy")
    place.write_json(facts, place.read_json(facts) | {"fingerprint": "another"})
    told = "codes of another VQ-VAE"
    for stage in STAGES:
        (run / "checkpoints" / stage / "finished.json").unlink()
        with pytest.raises(UserError, match=told):
            pipeline.run(hierarchy_config, str(run), [stage])
    for stage, file in (
        ("reconstructions", "reconstructions.npz"),
        ("samples", "samples.npz"),
        ("evaluate", "results.json"),
    ):
        (run / file).unlink()
        with pytest.raises(UserError, match=told):
            pipeline.run(hierarchy_config, str(run), [stage])


def test_stage_1_missing_is_told(hierarchy_config, tmp_path):
    with pytest.raises(UserError, match="there are no finished codes in"):
        pipeline.run(hierarchy_config, str(tmp_path / "run"), ["hierarchy"])


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("stages", 3, r"^hierarchy.stages=3 halves a grid of 4x4 codes"),
        ("latents", 0, r"^hierarchy.latents must be at least 1"),
        ("latent_codes", 1, r"^hierarchy.latent_codes must be at least 2"),
        ("kernel_size", 2, r"^hierarchy.kernel_size must be odd"),
        ("grid", (4, 4, 1), r"^hierarchy.grid is not an option"),
    ],
)
def test_sizes_that_cannot_be(hierarchy_config, tmp_path, key, value, message):
    config = json.loads(json.dumps(hierarchy_config))
    config["hierarchy"][key] = value
    with pytest.raises(UserError, match=message):
        pipeline.run(config, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_two_second_stages_are_refused(hierarchy_config, tiny_config, tmp_path):
    both = {**hierarchy_config, "prior": tiny_config["prior"]}
    with pytest.raises(UserError, match="prior and hierarchy are both in the config"):
        pipeline.run(both, str(tmp_path / "run"))


def test_frequencies_are_of_each_latent():
    found = frequencies(np.array([[0, 2], [0, 1], [1, 2], [0, 2]]), num_codes=3)
    np.testing.assert_array_equal(found, [[0.75, 0.25, 0], [0, 0.25, 0.75]])
