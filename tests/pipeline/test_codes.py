"""Codes of a trained VQ-VAE, and a prior over them."""

import json
import shutil

import numpy as np
import pytest

from vqvae_jax import pipeline
from vqvae_jax.data.codes import CodesSource, write_codes
from vqvae_jax.data.config import DataConfig
from vqvae_jax.data.dataset import open_dataset
from vqvae_jax.runtime.errors import UserError
from vqvae_jax.workdir import (
    Workdir,
    fingerprint,
    restore,
    restore_prior,
)


def test_codebook_figures_are_those_of_the_whole_test_set(finished_run, digits_dir):
    """[12] Encode the test split in one go and count in NumPy."""
    dataset = open_dataset(
        DataConfig(
            source="tfds",
            name="digits",
            data_dir=digits_dir,
            image_size=8,
            channels=1,
            validation_fraction=0.1,
        )
    )
    images = np.stack([e["image"] for e in dataset.test])
    model, params = restore(finished_run)
    codes = np.asarray(model.encode(params, images))
    p = np.bincount(codes.ravel(), minlength=16) / codes.size
    entropy = -np.sum(p[p > 0] * np.log2(p[p > 0]))
    results = json.loads((finished_run / "results.json").read_text())
    assert results["codebook_active_codes"] == np.count_nonzero(p)
    assert results["codebook_perplexity"] == pytest.approx(2**entropy, rel=1e-5)
    assert results["marginal_bits_per_code"] == pytest.approx(entropy, rel=1e-5)
    decoded = np.asarray(model.decode(params, codes), np.float64)
    mse = ((decoded - images) ** 2).mean((1, 2, 3))
    # The result is of the unrounded mean image; rounding moves it a little.
    psnr = np.mean(10 * np.log10(255**2 / mse))
    assert results["test_psnr_db"] == pytest.approx(psnr, abs=0.05)
    stored = CodesSource(finished_run / "codes" / "test")
    np.testing.assert_array_equal(codes, [e["codes"] for e in stored])
    labels = [int(e["label"]) for e in dataset.test]
    assert [int(e["label"]) for e in stored] == labels


def test_class_names_and_sizes_travel_with_the_prior(finished_run):
    """[18, 19]"""
    prior, _ = restore_prior(finished_run)
    assert prior.class_names == tuple("0123456789")
    assert prior.grid == (4, 4, 1)
    assert prior.num_codes == 16
    facts = json.loads((finished_run / "prior.json").read_text())
    assert facts["fingerprint"] == fingerprint(restore(finished_run)[1])


def test_a_prior_of_another_codebook_is_refused(copied_run, tiny_config):
    """[18] In training, and before sampling."""
    place = Workdir(copied_run)
    facts = place.read_json(place.prior) | {"fingerprint": "another"}
    place.write_json(place.prior, facts)
    with pytest.raises(UserError, match="codes of another VQ-VAE"):
        place.require_same_codebook(restore(copied_run)[1])
    shutil.rmtree(copied_run / "checkpoints" / "prior")
    with pytest.raises(UserError, match="codes of another VQ-VAE"):
        pipeline.run(tiny_config, str(copied_run), ["prior"])


@pytest.mark.parametrize("split", ["train", "validation"])
def test_nothing_is_trained_on_the_codes_of_another_vqvae(
    copied_run, tiny_config, split
):
    """[18] Where the best checkpoint was lost, say, and the next best is used."""
    shutil.rmtree(copied_run / "checkpoints" / "prior")
    metadata = copied_run / "codes" / split / "metadata.json"
    facts = json.loads(metadata.read_text()) | {"fingerprint": "another"}
    metadata.write_text(json.dumps(facts))
    with pytest.raises(UserError, match=r"another codebook \(another\) .*delete that"):
        pipeline.run(tiny_config, str(copied_run), ["prior"])
    assert not (copied_run / "checkpoints" / "prior").exists()


def test_nothing_is_measured_on_the_codes_of_another_vqvae(copied_run):
    """[18]"""
    place = Workdir(copied_run)
    metadata = copied_run / "codes" / "test" / "metadata.json"
    place.write_json(metadata, place.read_json(metadata) | {"fingerprint": "another"})
    with pytest.raises(UserError, match=r"another codebook \(another\) .*delete that"):
        place.require_same_codebook(restore(copied_run)[1])


def test_codes_that_were_begun_anew_are_not_mixed_with_old_ones(
    copied_run, tiny_config, monkeypatch
):
    """Who is killed after the first split has codes of one VQ-VAE, and not of all."""
    place = Workdir(copied_run)
    shutil.rmtree(place.codes_directory("train"))
    written = []

    def killed_at_the_second(directory, **options):
        if written:
            raise KeyboardInterrupt
        written.append(write_codes(directory, **options))

    monkeypatch.setattr("vqvae_jax.data.codes.write_codes", killed_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(tiny_config, str(copied_run), ["codes"])
    assert place.codes_directory("train").is_dir()
    assert not place.has_codes()


def constant_codes(workdir, *values, num_codes):
    """Replace the training set's codes by these values, of the same VQ-VAE."""
    source = Workdir(workdir).codes("train")
    codes = np.resize(values, (64, *source.metadata.grid))
    write_codes(
        workdir / "codes" / "train",
        batches=[(codes, {"label": np.arange(64) % 10})],
        num_codes=num_codes,
        class_names=source.metadata.class_names,
        fingerprint=source.metadata.fingerprint,
    )
    shutil.rmtree(workdir / "checkpoints" / "prior")


def test_no_prior_is_trained_on_a_collapsed_codebook(copied_run, tiny_config):
    constant_codes(copied_run, 3, num_codes=16)
    with pytest.raises(UserError, match=r"collapsed: 1 of 16 codes \(6\.2 %\)"):
        pipeline.run(tiny_config, str(copied_run), ["prior"])
    assert not (copied_run / "checkpoints" / "prior").exists()


def test_few_codes_are_warned_of(copied_run, tiny_config):
    constant_codes(copied_run, 3, 5, 9, num_codes=64)
    with pytest.warns(UserWarning, match=r"collapsed: 3 of 64 codes \(4\.7 %\)"):
        pipeline.run(tiny_config, str(copied_run), ["prior"])
    assert restore_prior(copied_run)[0].num_codes == 64
