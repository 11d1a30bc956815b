"""Latent use and reconstruction quality, against direct computations."""

import json
import math

import jax.numpy as jnp
import numpy as np
import pytest

from vqvae_jax.data.batches import eval_batches
from vqvae_jax.runtime.errors import UserError
from vqvae_jax.tasks.hierarchy import evaluation
from vqvae_jax.workdir import Workdir


class FirstCode:
    """Latents are the first code of a frame; a code costs its distance in bits."""

    def encode(self, params, codes):
        return params * codes[:, 0, 0]

    def log_prob(self, params, codes, latents):
        distances = jnp.abs(codes - latents[:, None, None])
        return -distances.sum(axis=(1, 2, 3)) * math.log(2)


@pytest.fixture
def frames():
    """Nineteen frames of 2x3 codes, not a multiple of the batch size."""
    codes = np.random.default_rng(0).integers(9, size=(19, 2, 3, 1), dtype=np.int32)
    return [{"codes": frame, "label": np.int32(0)} for frame in codes]


def in_batches(source):
    return eval_batches(source, batch_size=8)


@pytest.mark.parametrize("n", [2, 3, 19, 1000])
def test_derangement_has_no_fixed_point(n):
    others = evaluation.derangement(n)
    assert sorted(others) == list(range(n))
    assert np.all(others != np.arange(n))


def test_one_frame_cannot_be_exchanged():
    with pytest.raises(UserError, match="needs at least two frames, got 1"):
        evaluation.derangement(1)


def test_bits_given_own_and_other_latents(frames):
    codes = np.stack([frame["codes"] for frame in frames])
    found = evaluation.latent_use(FirstCode(), jnp.int32(1), frames, in_batches)
    latents = codes[:, 0, 0]
    own = np.abs(codes - latents[:, None, None]).sum(axis=(1, 2, 3)).mean()
    swapped = latents[evaluation.derangement(19)]
    other = np.abs(codes - swapped[:, None, None]).sum(axis=(1, 2, 3)).mean()
    assert found == pytest.approx((own, other), rel=1e-5)
    assert other > own


def test_each_frame_is_encoded_once_in_order(frames):
    latents = evaluation.encode_all(FirstCode(), jnp.int32(2), frames, in_batches)
    expected = [2 * frame["codes"][0, 0] for frame in frames]
    np.testing.assert_array_equal(latents, expected)


def test_psnr_of_stored_images(tmp_path):
    rng = np.random.default_rng(0)
    test = [{"image": i} for i in rng.integers(256, size=(9, 4, 4, 1), dtype=np.uint8)]
    frames = np.array([1, 4, 8])
    images = {
        name: rng.integers(256, size=(3, 4, 4, 1), dtype=np.uint8)
        for name in ("first_stage", "hierarchy", "hierarchy_vae")
    }
    workdir = Workdir(tmp_path)
    workdir.write_arrays(workdir.reconstructions, frames=frames, **images)
    found = evaluation.reconstruction_quality(workdir, test)
    originals = np.stack([test[i]["image"] for i in frames]).astype(float)
    images["other_frames"] = originals[evaluation.derangement(3)]
    for name, key in {
        "first_stage": "first_stage",
        "global_codes": "hierarchy",
        "vae_latents": "hierarchy_vae",
        "other_frames": "other_frames",
    }.items():
        mse = np.mean((originals - images[key]) ** 2, axis=(1, 2, 3))
        expected = np.mean(10 * np.log10(255**2 / mse))
        assert found[f"reconstruction_psnr_db_{name}"] == pytest.approx(expected)
    assert found["reconstructed_frames"] == 3


@pytest.mark.slow
def test_results_of_a_run_add_up(hierarchy_run):
    """Of all three models; a frame has 6 bits of latents and 16 codes."""
    results = json.loads((hierarchy_run / "results.json").read_text())
    assert results["global_bits_per_frame"] == 2 * math.log2(8)
    assert results["global_compression_ratio"] == 512 / 6
    assert results["global_codebook_codes"] == 16
    for prefix, rate in (
        ("", "global_bits_per_frame"),
        ("vae_", "vae_kl_bits_per_frame"),
    ):
        right = results[f"{prefix}decoder_bits_per_frame_right_latents"]
        other = results[f"{prefix}decoder_bits_per_frame_other_latents"]
        assert results[f"{prefix}latent_margin_bits_per_frame"] == other - right
        assert results[f"{prefix}total_bits_per_frame"] == right + results[rate]
    without = results["decoder_bits_per_frame_without_latents"]
    assert without == pytest.approx(16 * results["prior_bits_per_code"])
    assert 0 < without < 16 * 5
    assert results["code_bits_learned_prior"] == pytest.approx(without)
    assert "hierarchy_vae_train_steps" in results
