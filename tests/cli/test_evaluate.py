"""The command `evaluate` gives the results of the run that trained the model."""

import json

import pytest

import vqvae_jax


def test_a_run_gets_its_own_results(command, finished_run, tmp_path):
    """Reconstructions, codes and the prior; times and samples are not measured."""
    out = tmp_path / "results.json"
    words = ("evaluate", finished_run, out, "--batch_size", 48)
    found = command(*words, "--sum_over_classes")
    assert (found.code, found.err) == (0, "")
    results = json.loads(out.read_text())
    expected = json.loads((finished_run / "results.json").read_text())
    assert (
        {
            "test_psnr_db",
            "test_loss",
            "codebook_perplexity",
            "codebook_active_codes",
            "prior_bits_per_code",
            "test_rate_bits_per_dim_learned_prior",
        }
        <= results.keys()
        <= expected.keys()
    )
    assert results == pytest.approx(
        {name: expected[name] for name in results}, rel=1e-5
    )
    assert "test_psnr_db" in found.out


def test_classes_are_known_by_default(command, finished_run, tmp_path):
    out = tmp_path / "results.json"
    assert command("evaluate", finished_run, out).code == 0
    results = json.loads(out.read_text())
    assert "prior_bits_per_code" not in results
    expected = json.loads((finished_run / "results.json").read_text())
    name = "test_rate_bits_per_dim_learned_prior_given_class"
    assert results[name] == pytest.approx(expected[name], rel=1e-5)


def test_a_saved_model_is_evaluated_on_data_elsewhere(
    command, error_of, finished_run, digits_dir, tmp_path
):
    saved = vqvae_jax.save_pretrained(finished_run, tmp_path / "saved").parent
    out = tmp_path / "results.json"
    assert command("evaluate", saved, out, "--data_dir", digits_dir).code == 0
    results = json.loads(out.read_text())
    expected = json.loads((finished_run / "results.json").read_text())
    assert results["test_psnr_db"] == pytest.approx(expected["test_psnr_db"], rel=1e-5)
    assert "--force replaces it" in error_of("evaluate", saved, out)


def test_a_model_without_data_cannot_be_evaluated(error_of, finished_run, tmp_path):
    pair = vqvae_jax.restore(finished_run)
    saved = vqvae_jax.save_pretrained(pair, tmp_path / "saved").parent
    message = error_of("evaluate", saved, tmp_path / "results.json")
    assert "does not record its data" in message
    assert not (tmp_path / "results.json").exists()
