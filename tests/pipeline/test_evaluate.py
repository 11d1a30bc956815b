"""The results of a run, compared with independent computations."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm
from sklearn.svm import SVC

import vqvae_jax
from vqvae_jax import metrics
from vqvae_jax.data.dataset import Dataset, open_dataset
from vqvae_jax.data.source import first_examples
from vqvae_jax.experiment import Experiment
from vqvae_jax.pipeline import evaluate
from vqvae_jax.pipeline.images import evaluate_prior
from vqvae_jax.pipeline.run import Context
from vqvae_jax.training import sharding
from vqvae_jax.training.loop import make_evaluation
from vqvae_jax.workdir import Workdir


@pytest.fixture(scope="module")
def results(finished_run) -> dict:
    return json.loads((finished_run / "results.json").read_text())


@pytest.fixture(scope="module")
def dataset(tiny_config) -> Dataset:
    return open_dataset(Experiment.from_config(tiny_config).data)


def nats_of_each_class(workdir, split):
    """log p(z | class) of every grid and each of ten classes, `[N, 10]`; the labels."""
    source = Workdir(workdir).codes(split)
    stored = first_examples(source, len(source))
    prior, params = vqvae_jax.restore(workdir, "prior")
    log_prob = jax.jit(prior.log_prob)
    ones = np.ones(len(source), np.int32)
    of_classes = [
        log_prob(params, stored["codes"], labels=label * ones) for label in range(10)
    ]
    return np.stack(np.float64(of_classes), axis=1), stored["label"]


def given_class(nats, labels):
    return nats[np.arange(len(labels)), labels]


@pytest.mark.parametrize(
    ("split", "end"), [("test", ""), ("validation", "_validation")]
)
def test_bits_per_code_given_the_class(finished_run, results, split, end):
    """Computed for the whole split at once, each image with its label."""
    nats = given_class(*nats_of_each_class(finished_run, split))
    name = f"prior_bits_per_code_given_class{end}"
    bits = -nats.mean() / np.log(2) / 16
    assert results[name] == pytest.approx(bits, rel=1e-4)


def test_bits_without_the_class_are_those_of_the_mean_over_classes(
    finished_run, results
):
    """p(z) is the mean of p(z | class): a label of log2 10 bits is all it can lack."""
    nats, labels = nats_of_each_class(finished_run, "test")
    bits = -np.log2(np.exp(nats).mean(axis=1))
    assert results["prior_bits_per_code"] == pytest.approx(bits.mean() / 16, rel=1e-4)
    known = -given_class(nats, labels).mean() / np.log(2)
    assert bits.mean() < known + np.log2(10)


def evaluation_sums(model, params, batches):
    return make_evaluation(model.evaluate, sharding.data_mesh())(params, batches)


def test_bits_on_train_are_those_of_a_fixed_subset(finished_run, tiny_config, dataset):
    """40 different grids if `train_grids` is 40; all for 0 and for too many."""
    source = Workdir(finished_run).codes("train")
    grids = {grid.tobytes() for grid in first_examples(source, len(source))["codes"]}
    drawn = evaluate._drawn(source, 40)
    subset = first_examples(drawn, len(drawn))
    assert len(subset["codes"]) == len(np.unique(drawn._indices)) == 40
    assert {grid.tobytes() for grid in subset["codes"]} <= grids
    again = first_examples(evaluate._drawn(source, 40), 40)
    np.testing.assert_array_equal(subset["codes"], again["codes"])
    # From the whole set: the first 40 grids are its first quarter at most.
    assert drawn._indices.max() > 0.7 * len(source)
    for n in (0, len(source), len(source) + 1):
        assert len(evaluate._drawn(source, n)) == len(source)

    config = json.loads(json.dumps(tiny_config))
    config["evaluation"] |= {"train_grids": 40, "sum_over_classes": False}
    prior, params = vqvae_jax.restore(finished_run, "prior")
    params = jax.device_put(params, sharding.replicated(sharding.data_mesh()))
    experiment = Experiment.from_config(config)
    context = Context(Workdir(finished_run), experiment, dataset)
    measured = evaluate_prior(context).results
    nats = jax.jit(prior.log_prob)(params, subset["codes"], labels=subset["label"])
    bits = -np.mean(np.float64(nats)) / np.log(2) / 16
    assert measured["prior_bits_per_code_given_class_train"] == pytest.approx(
        bits, rel=1e-4
    )
    assert measured["prior_train_grids_evaluated"] == 40
    assert "prior_bits_per_code" not in measured


def test_loss_is_equation_3_without_the_codebook_term(finished_run, results, dataset):
    """Squared error over 2 * 0.5^2 plus beta times the commitment loss, in NumPy."""
    model, params = vqvae_jax.restore(finished_run)
    images = first_examples(dataset.test, len(dataset.test))["image"] / 127.5 - 1

    @jax.jit
    def networks(images):
        z_e = model._encoder.apply(params.encoder, images)
        z_q = model.quantizer.quantize(params.quantizer, z_e).z_q
        return z_e, z_q, model._decoder.apply(params.decoder, z_q)

    z_e, z_q, outputs = map(np.float64, networks(jnp.asarray(images, jnp.float32)))
    reconstruction = np.mean((outputs - images) ** 2) / (2 * 0.5**2)
    commitment = np.mean((z_e - z_q) ** 2)
    expected = reconstruction + 0.25 * commitment
    assert results["test_loss"] == pytest.approx(expected, rel=1e-4)


def test_samples_are_classified_by_a_classifier_of_train(
    finished_run, results, dataset
):
    train = first_examples(dataset.train, len(dataset.train))
    classifier = SVC().fit(train["image"].reshape(-1, 64) / 255, train["label"])

    def accuracy(images, labels):
        return np.mean(classifier.predict(images.reshape(-1, 64) / 255) == labels)

    with np.load(finished_run / "samples.npz", allow_pickle=False) as samples:
        of_samples = accuracy(samples["images"], samples["labels"])
    test = first_examples(dataset.test, len(dataset.test))
    assert results["sample_class_accuracy"] == pytest.approx(of_samples)
    assert results["real_class_accuracy"] == accuracy(test["image"], test["label"])
    assert results["real_class_accuracy"] > 0.95


def test_sizes_steps_and_speeds_match_the_run(finished_run, results, tiny_config):
    lines = (finished_run / "metrics.jsonl").read_text().splitlines()
    speeds = {"vqvae": [], "prior": []}
    losses = {"vqvae": {}, "prior": {}}
    for entry in map(json.loads, lines):
        if entry["split"] == "train":
            speeds[entry["stage"]].append(entry["examples_per_second"])
        else:
            losses[entry["stage"]][entry["step"]] = entry["loss"]
    assert len(speeds["vqvae"]) == len(speeds["prior"]) == 20 // 5
    expected = {
        "train_images_per_second": np.median(speeds["vqvae"]),
        "prior_train_grids_per_second": np.median(speeds["prior"]),
        "train_steps": 20,
        "prior_train_steps": 20,
        "best_step": min(losses["vqvae"], key=losses["vqvae"].get),
        "prior_best_step": min(losses["prior"], key=losses["prior"].get),
        "codebook_codes": 16,
        "image_bits": 8 * 8 * 8,
        "code_bits": 4 * 4 * 4,
        "compression_ratio": 8,
        "code_bits_learned_prior": 16 * results["prior_bits_per_code"],
        "compression_ratio_learned_prior": 32 / results["prior_bits_per_code"],
        "code_bits_learned_prior_given_class": (
            16 * results["prior_bits_per_code_given_class"]
        ),
        "prior_train_grids_evaluated": len(Workdir(finished_run).codes("train")),
        "sample_temperature": tiny_config["samples"]["temperature"],
    }
    assert {name: results[name] for name in expected} == pytest.approx(expected)
    # An 8x8 image has no SSIM.
    assert "test_ssim" not in results


def test_imagenet_sizes(tiny_config):
    """Section 4.2: 393 216 bits become 9 216, 42.67 times fewer; and SSIM exists.

    The networks are random and small; only sizes matter.
    """
    config = json.loads(json.dumps(tiny_config))
    config["data"] |= {"image_size": 128, "channels": 3}
    for network in ("encoder", "decoder"):
        config["model"][network] |= {"num_downsamples": 2, "residual_blocks": 0}
    config["model"]["quantizer"] |= {"num_codes": 512, "codebook_init": "uniform"}
    config["evaluation"]["batch_size"] = 8
    experiment = Experiment.from_config(config)
    model = experiment.model
    images = np.random.default_rng(0).integers(256, size=(3, 128, 128, 3)).astype("u1")
    source = [{"image": image, "label": np.int32(0)} for image in images]
    batch = {"image": jnp.asarray(images), "mask": jnp.ones(3, bool)}
    params = jax.jit(model.init)(jax.random.key(0), batch)
    sums = evaluation_sums(model, params, experiment.eval_batches(source))
    values = metrics.compute(sums)
    results = evaluate._vqvae_results(model, values, {"prior_bits_per_code": 4.5})
    expected = {
        "image_bits": 393_216,
        "code_bits": 9216,
        "compression_ratio": 42 + 2 / 3,
        "code_bits_learned_prior": 4608,
        "compression_ratio_learned_prior": 85 + 1 / 3,
    }
    assert {name: results[name] for name in expected} == pytest.approx(expected)
    assert 0 < results["test_ssim"] < 0.1


def test_bits_of_a_discrete_likelihood(tiny_config):
    """(-log2 p(x|z) + bits of the codes) / 64, where SciPy integrates p(x|z)."""
    config = json.loads(json.dumps(tiny_config))
    config["model"]["likelihood"] = "gaussian"
    config["model"]["quantizer"]["codebook_init"] = "uniform"
    config["evaluation"]["batch_size"] = 8
    experiment = Experiment.from_config(config)
    model = experiment.model
    images = np.random.default_rng(0).integers(256, size=(11, 8, 8, 1)).astype("u1")
    source = [{"image": image, "label": np.int32(0)} for image in images]
    batch = {"image": jnp.asarray(images), "mask": jnp.ones(11, bool)}

    @jax.jit
    def initialised(batch):
        params = model.init(jax.random.key(0), batch)
        codes = model.encode(params, batch["image"])
        z_q = model.quantizer.lookup(params.quantizer, codes)
        return params, model._decoder.apply(params.decoder, z_q)

    params, outputs = initialised(batch)
    sums = evaluation_sums(model, params, experiment.eval_batches(source))
    learned_rate = np.linspace(10, 70, 11)
    found = evaluate.rate_distortion(
        metrics.each(sums)["distortion_bits"],
        uniform_rate=model.code_bits,
        learned_rates={"learned_prior": learned_rate},
    )
    mean, log_scale = np.split(np.float64(outputs), 2, axis=-1)
    centre, scale = (mean + 1) * 127.5, np.exp(log_scale) * 127.5
    upper = np.where(images == 255, np.inf, images + 0.5)
    lower = np.where(images == 0, -np.inf, images - 0.5)
    p = norm.cdf(upper, centre, scale) - norm.cdf(lower, centre, scale)
    bits = -np.log2(p).reshape(11, -1).sum(axis=1)
    assert bits.min() > 64
    for name, rate in (("uniform", 16 * math.log2(16)), ("learned", learned_rate)):
        np.testing.assert_allclose(found[f"bits_{name}_prior"], bits + rate, rtol=1e-4)
    mean_of_all = metrics.compute(sums)["bits_per_dim_uniform_prior"]
    assert mean_of_all == pytest.approx(
        np.mean(bits + 16 * math.log2(16)) / 64, rel=1e-4
    )


def test_the_bits_of_each_test_image_are_saved(finished_run, results, dataset):
    """In order; the results are their means."""
    with np.load(finished_run / "test_bits.npz", allow_pickle=False) as kept:
        bits = dict(kept)
    nats, labels = nats_of_each_class(finished_run, "test")
    assert len(nats) == len(dataset.test)
    rates = {
        "uniform_prior": np.full(len(nats), 16 * 4.0),
        "learned_prior": -np.log2(np.exp(nats).mean(axis=1)),
        "learned_prior_given_class": -given_class(nats, labels) / np.log(2),
    }
    # A squared error has no distortion in bits.
    assert set(bits) == {f"rate_bits_{name}" for name in rates}
    for name, rate in rates.items():
        np.testing.assert_allclose(bits[f"rate_bits_{name}"], rate, rtol=1e-4)
        mean = results[f"test_rate_bits_per_dim_{name}"]
        assert mean == pytest.approx(rate.mean() / 64, rel=1e-4)


def test_steps_of_a_run_that_stopped_early(tiny_config, tmp_path):
    """The best step is the newest of equal ones, which is the one `restore` reads."""
    validation = {
        "vqvae": {10: 3.0, 20: 1.0, 30: 2.0},
        "prior": {10: 2.0, 20: 1.0, 30: 1.0, 40: 4.0},
    }
    lines = []
    for stage, losses in validation.items():
        for step, loss in losses.items():
            entry = {"stage": stage, "step": step, "loss": loss}
            train = entry | {"split": "train", "examples_per_second": 7.0, "loss": 0.0}
            lines += [train, entry | {"split": "validation"}]
    workdir = Workdir(tmp_path)
    workdir.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    experiment = Experiment.from_config(tiny_config)
    found = evaluate.training_results(workdir, experiment, counted="images")
    assert (found["train_steps"], found["best_step"]) == (30, 20)
    assert (found["prior_train_steps"], found["prior_best_step"]) == (40, 30)
    assert found["train_images_per_second"] == 7.0
