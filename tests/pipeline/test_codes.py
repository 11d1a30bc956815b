"""The codes of a trained VQ-VAE, and a prior trained on them."""

import json
import shutil

import numpy as np
import pytest

import vqvae_jax
from vqvae_jax import pipeline
from vqvae_jax.data.codes import CodesSource, write_codes
from vqvae_jax.data.dataset import open_dataset
from vqvae_jax.experiment import Experiment
from vqvae_jax.models.base import fingerprint
from vqvae_jax.pipeline.codes import encode_images
from vqvae_jax.pipeline.run import Context
from vqvae_jax.runtime.errors import UserError
from vqvae_jax.workdir import Workdir


def test_codebook_results_cover_the_whole_test_split(finished_run, tiny_dataset):
    """[12] Encode the test split at once and count in NumPy."""
    images = np.stack([e["image"] for e in tiny_dataset.test])
    model, params = vqvae_jax.restore(finished_run)
    codes = np.asarray(model.encode(params, images))
    p = np.bincount(codes.ravel(), minlength=16) / codes.size
    entropy = -np.sum(p[p > 0] * np.log2(p[p > 0]))
    results = json.loads((finished_run / "results.json").read_text())
    assert results["codebook_active_codes"] == np.count_nonzero(p)
    assert results["codebook_perplexity"] == pytest.approx(2**entropy, rel=1e-5)
    assert results["marginal_bits_per_code"] == pytest.approx(entropy, rel=1e-5)
    decoded = np.asarray(model.decode(params, codes), np.float64)
    mse = ((decoded - images) ** 2).mean((1, 2, 3))
    # The result is that of the mean image before rounding, hence the tolerance.
    psnr = np.mean(10 * np.log10(255**2 / mse))
    assert results["test_psnr_db"] == pytest.approx(psnr, abs=0.05)
    stored = CodesSource(finished_run / "codes" / "test")
    np.testing.assert_array_equal(codes, [e["codes"] for e in stored])
    labels = [int(e["label"]) for e in tiny_dataset.test]
    assert [int(e["label"]) for e in stored] == labels


def test_the_prior_has_the_class_names_and_sizes_of_the_codes(finished_run):
    """[18, 19]"""
    prior, _ = vqvae_jax.restore(finished_run, "prior")
    assert prior.class_names == tuple("0123456789")
    assert prior.grid == (4, 4, 1)
    assert prior.num_codes == 16
    metadata = json.loads((finished_run / "prior.json").read_text())
    assert metadata["fingerprint"] == fingerprint(*vqvae_jax.restore(finished_run))


def test_a_prior_of_another_codebook_raises(copied_run, tiny_config):
    """[18] In training, and before sampling."""
    workdir = Workdir(copied_run)
    path = workdir.codes_metadata("prior")
    workdir.write_json(path, workdir.read_json(path) | {"fingerprint": "another"})
    with pytest.raises(UserError, match="codes of another VQ-VAE"):
        workdir.require_same_codebook(*workdir.restore())
    shutil.rmtree(copied_run / "checkpoints" / "prior")
    with pytest.raises(UserError, match="codes of another VQ-VAE"):
        pipeline.run(tiny_config, str(copied_run), ["prior"])


@pytest.mark.parametrize("split", ["train", "validation"])
def test_training_on_the_codes_of_another_vqvae_raises(copied_run, tiny_config, split):
    """[18] For example, after the loss of the best checkpoint."""
    shutil.rmtree(copied_run / "checkpoints" / "prior")
    metadata = copied_run / "codes" / split / "metadata.json"
    values = json.loads(metadata.read_text()) | {"fingerprint": "another"}
    metadata.write_text(json.dumps(values))
    with pytest.raises(UserError, match=r"another codebook \(another\) .*delete that"):
        pipeline.run(tiny_config, str(copied_run), ["prior"])
    assert not (copied_run / "checkpoints" / "prior").exists()


def test_evaluation_on_the_codes_of_another_vqvae_raises(copied_run):
    """[18]"""
    workdir = Workdir(copied_run)
    path = copied_run / "codes" / "test" / "metadata.json"
    workdir.write_json(path, workdir.read_json(path) | {"fingerprint": "another"})
    with pytest.raises(UserError, match=r"another codebook \(another\) .*delete that"):
        workdir.require_same_codebook(*workdir.restore())


def test_new_codes_never_coexist_with_old_ones(copied_run, tiny_config, monkeypatch):
    """A run killed after its first split has that split's codes only."""
    workdir = Workdir(copied_run)
    shutil.rmtree(workdir.codes_directory("train"))
    written = []

    def killed_at_second_split(directory, **options):
        if written:
            raise KeyboardInterrupt
        written.append(write_codes(directory, **options))

    monkeypatch.setattr("vqvae_jax.data.codes.write_codes", killed_at_second_split)
    with pytest.raises(KeyboardInterrupt):
        pipeline.run(tiny_config, str(copied_run), ["codes"])
    assert workdir.codes_directory("train").is_dir()
    assert not workdir.has_codes()


def constant_codes(workdir, *values, num_codes):
    """Replace the codes of train by these values; their fingerprint remains."""
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


def test_a_collapsed_codebook_raises_before_training(copied_run, tiny_config):
    constant_codes(copied_run, 3, num_codes=16)
    with pytest.raises(UserError, match=r"collapsed: 1 of 16 codes \(6\.2 %\)"):
        pipeline.run(tiny_config, str(copied_run), ["prior"])
    assert not (copied_run / "checkpoints" / "prior").exists()


def test_few_codes_in_use_cause_a_warning(copied_run, tiny_config, monkeypatch):
    # A twentieth of sixteen codes would be less than one.
    monkeypatch.setattr("vqvae_jax.data.codes._FEW", 0.2)
    constant_codes(copied_run, 3, 5, 9, num_codes=16)
    with pytest.warns(UserWarning, match=r"collapsed: 3 of 16 codes \(18\.8 %\)"):
        pipeline.run(tiny_config, str(copied_run), ["prior"])
    assert (copied_run / "checkpoints" / "prior" / "finished.json").exists()


def test_flipped_images_are_coded_too_where_training_flips(copied_run, tiny_config):
    """The codes of the flipped training images follow; other splits are unchanged."""
    before = {s: CodesSource(copied_run / "codes" / s) for s in ("train", "test")}
    before = {split: [e["codes"] for e in codes] for split, codes in before.items()}
    workdir = Workdir(copied_run)
    shutil.rmtree(copied_run / "codes")
    config = json.loads(json.dumps(tiny_config))
    config["data"]["random_flip"] = True
    experiment = Experiment.from_config(config)
    dataset = open_dataset(experiment.data)
    encode_images(Context(workdir, experiment, dataset))
    test = [e["codes"] for e in CodesSource(copied_run / "codes" / "test")]
    np.testing.assert_array_equal(test, before["test"])
    train = list(CodesSource(copied_run / "codes" / "train"))
    count = len(before["train"])
    assert len(train) == 2 * count
    codes = np.stack([e["codes"] for e in train])
    np.testing.assert_array_equal(codes[:count], before["train"])
    labels = [int(e["label"]) for e in train]
    assert labels[:count] == labels[count:]
    model, params = vqvae_jax.restore(copied_run)
    images = np.stack([dataset.train[i]["image"] for i in range(8)])
    flipped = np.asarray(model.encode(params, images[:, :, ::-1]))
    np.testing.assert_array_equal(codes[count : count + 8], flipped)
    assert (codes[count:] != codes[:count]).any()
