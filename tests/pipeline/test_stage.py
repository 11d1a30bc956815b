"""The stages that runs of any kind have."""

import json
import re

import jax
import numpy as np
import pytest

from vqvae_jax import pipeline
from vqvae_jax.workdir import restore, restore_prior


def test_results_are_flat_numbers_with_units_in_their_names(finished_run):
    results = json.loads((finished_run / "results.json").read_text())
    expected = {
        "test_psnr_db",
        "codebook_perplexity",
        "codebook_active_codes",
        "prior_bits_per_code",
        "prior_bits_per_code_validation",
        "prior_bits_per_code_train",
        "marginal_bits_per_code",
        "sample_class_accuracy",
        "train_images_per_second",
    }
    assert expected <= results.keys()
    assert all(isinstance(v, int | float) for v in results.values())
    assert np.isfinite(list(results.values())).all()
    # 8x8 bytes an image, 4x4 codes of 16.
    assert (results["image_bits"], results["code_bits"]) == (512, 64)
    assert "test_bits_per_dim_uniform_prior" not in results


@pytest.mark.slow
def test_evaluation_changes_no_checkpoint(copied_run, tiny_config):
    """[24]"""
    before = jax.tree.leaves((restore(copied_run)[1], restore_prior(copied_run)[1]))
    (copied_run / "results.json").unlink()
    pipeline.run(tiny_config, str(copied_run))
    after = jax.tree.leaves((restore(copied_run)[1], restore_prior(copied_run)[1]))
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)


def test_report_is_one_self_contained_page(finished_run):
    page = (finished_run / "report.html").read_text()
    for heading in ("Results", "Reconstructions", "Samples", "Codebook"):
        assert f"<h2>{heading}</h2>" in page
    # Twelve reconstructions, and samples of ten classes.
    assert page.count("data:image/png;base64,") == 12 + 10
    assert page.count("<img") == page.count('alt="')
    assert not re.search(r'\b(src|srcset|href)="(?!data:|#)', page)
    assert "Test PSNR (dB)" in page
