"""All stages on tiny digits: what they leave, how they resume, what they refuse."""

import json
import shutil

import jax
import numpy as np
import pytest

from vqvae_jax import stages
from vqvae_jax.data.codes import CodesSource, write_codes
from vqvae_jax.data.config import DataConfig
from vqvae_jax.data.dataset import open_dataset
from vqvae_jax.errors import UserError
from vqvae_jax.workdir import Workdir, fingerprint, restore, restore_prior


@pytest.fixture
def copied_run(finished_run, tmp_path):
    return shutil.copytree(finished_run, tmp_path / "run")


def modification_times(workdir):
    return {p: p.stat().st_mtime_ns for p in workdir.rglob("*") if p.is_file()}


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


def test_samples_hold_images_and_labels(finished_run):
    with np.load(finished_run / "samples.npz", allow_pickle=False) as samples:
        assert samples["images"].shape == (40, 8, 8, 1)
        assert samples["images"].dtype == np.uint8
        np.testing.assert_array_equal(samples["labels"], np.arange(40) % 10)
        assert samples["class_names"].tolist() == list("0123456789")
        images, codes = samples["images"], samples["codes"]
    model, params = restore(finished_run)
    np.testing.assert_array_equal(model.decode(params, codes), images)
    pictures = sorted(p.name for p in (finished_run / "samples").iterdir())
    assert pictures == [f"{i:04d}_{i}.png" for i in range(10)]


def test_class_names_and_sizes_travel_with_the_prior(finished_run):
    """[18, 19]"""
    prior, _ = restore_prior(finished_run)
    assert prior.class_names == tuple("0123456789")
    assert prior.grid == (4, 4, 1)
    assert prior.num_codes == 16
    facts = json.loads((finished_run / "prior.json").read_text())
    assert facts["fingerprint"] == fingerprint(restore(finished_run)[1])


def test_a_finished_run_is_left_alone(finished_run, tiny_config, capsys):
    before = modification_times(finished_run)
    stages.run(tiny_config, str(finished_run))
    assert "nothing to do" in capsys.readouterr().out
    assert modification_times(finished_run) == before


def test_an_unfinished_stage_runs_again_with_all_that_read_from_it(
    copied_run, tiny_config
):
    expected = np.load(copied_run / "samples.npz")["images"]
    before = modification_times(copied_run)
    (copied_run / "samples.npz").unlink()
    stages.run(tiny_config, str(copied_run))
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
        "report.html",
    }


def test_a_prior_of_another_codebook_is_refused(copied_run, tiny_config):
    """[18] In training, and before sampling."""
    place = Workdir(copied_run)
    facts = place.read_json(place.prior) | {"fingerprint": "another"}
    place.write_json(place.prior, facts)
    with pytest.raises(UserError, match="codes of another VQ-VAE"):
        place.require_same_codebook(restore(copied_run)[1])
    shutil.rmtree(copied_run / "checkpoints" / "prior")
    with pytest.raises(UserError, match="codes of another VQ-VAE"):
        stages.run(tiny_config, str(copied_run), ["prior"])


def constant_codes(workdir, *values, num_codes):
    """Replace the training set's codes by these values, of the same VQ-VAE."""
    source = Workdir(workdir).codes("train")
    codes = np.resize(values, (64, *source.metadata.grid))
    write_codes(
        workdir / "codes" / "train",
        batches=[(codes, np.arange(64) % 10)],
        num_codes=num_codes,
        class_names=source.metadata.class_names,
        fingerprint=source.metadata.fingerprint,
    )
    shutil.rmtree(workdir / "checkpoints" / "prior")


def test_no_prior_is_trained_on_a_collapsed_codebook(copied_run, tiny_config):
    constant_codes(copied_run, 3, num_codes=16)
    with pytest.raises(UserError, match=r"collapsed: 1 of 16 codes \(6\.2 %\)"):
        stages.run(tiny_config, str(copied_run), ["prior"])
    assert not (copied_run / "checkpoints" / "prior").exists()


def test_few_codes_are_warned_of(copied_run, tiny_config):
    constant_codes(copied_run, 3, 5, 9, num_codes=64)
    with pytest.warns(UserWarning, match=r"collapsed: 3 of 64 codes \(4\.7 %\)"):
        stages.run(tiny_config, str(copied_run), ["prior"])
    assert restore_prior(copied_run)[0].num_codes == 64


def test_training_is_finished_where_its_mark_is(copied_run):
    """Not where some step is: patience may end it at any."""
    for stage in ("vqvae", "prior"):
        checkpoints = copied_run / "checkpoints" / stage
        assert stages.STAGES[stage].is_done(Workdir(copied_run), None)
        (checkpoints / "20").rename(checkpoints / "10000")
        assert stages.STAGES[stage].is_done(Workdir(copied_run), None)
        shutil.rmtree(checkpoints)
        assert not stages.STAGES[stage].is_done(Workdir(copied_run), None)


def test_a_changed_config_is_refused_with_its_keys(copied_run, tiny_config):
    changed = json.loads(json.dumps(tiny_config))
    changed["model"]["beta"] = 0.5
    changed["seed"] = 7
    with pytest.raises(UserError, match=r"model\.beta: 0\.25 there, 0\.5 now; seed"):
        stages.run(changed, str(copied_run))
    moved = json.loads(json.dumps(tiny_config))
    moved["data"]["data_dir"] = "elsewhere"
    stages.run(moved, str(copied_run))


def test_stages_in_the_wrong_order_say_what_is_missing(tiny_config, tmp_path):
    with pytest.raises(UserError, match=r"no checkpoint .*train this stage first"):
        stages.run(tiny_config, str(tmp_path / "run"), ["codes"])
    with pytest.raises(UserError, match="'vqave' does not exist; there are vqvae"):
        stages.run(tiny_config, str(tmp_path / "other"), ["vqave"])
    assert not (tmp_path / "other").exists()


def test_evaluation_changes_no_checkpoint(copied_run, tiny_config):
    """[24]"""
    before = jax.tree.leaves((restore(copied_run)[1], restore_prior(copied_run)[1]))
    (copied_run / "results.json").unlink()
    stages.run(tiny_config, str(copied_run))
    after = jax.tree.leaves((restore(copied_run)[1], restore_prior(copied_run)[1]))
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a, b)


def test_report_is_one_self_contained_page(finished_run):
    page = (finished_run / "report.html").read_text()
    for heading in ("Results", "Reconstructions", "Samples", "Codebook usage"):
        assert f"<h2>{heading}</h2>" in page
    assert page.count("data:image/png;base64,") == 10 + 4
    assert page.count("<img") == page.count('alt="')
    assert "http" not in page
    assert "Test PSNR (dB)" in page
