"""A second VQ-VAE as a portable file."""

import jax
import numpy as np
import pytest

import vqvae_jax
from vqvae_jax.pretrained.loading import find


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
