"""The figures of a run: what `results.json` holds."""

import json
import math

import jax
import numpy as np

from vqvae_jax import metrics as metrics_lib
from vqvae_jax.data.dataset import Dataset
from vqvae_jax.data.source import Source, Subset, first_examples, permutation
from vqvae_jax.evaluation import bounds, classifier, usage
from vqvae_jax.experiment import Experiment
from vqvae_jax.models.prior import Prior
from vqvae_jax.models.vqvae import VQVAE
from vqvae_jax.training import sharding
from vqvae_jax.training.evaluate import make_evaluation
from vqvae_jax.workdir import SPLITS, Workdir, restore, restore_prior

Results = dict[str, float | int]
# A stage that trains, the prefix of its results, and what its speed counts.
Stages = tuple[tuple[str, str, str], ...]
_TWO_STAGES = (("vqvae", "", "train_images"), ("prior", "prior_", "prior_train_grids"))


def measure(workdir: Workdir, experiment: Experiment, dataset: Dataset) -> Results:
    """Measure a trained model, and a VQ-VAE's prior, on the test split.

    Returns a flat dict; units are part of the names.

    Raises:
      UserError: the prior belongs to another VQ-VAE, or a stage is missing.
    """
    model, params = restore(workdir.path)
    has_prior = experiment.kind == "vqvae"
    if has_prior:
        workdir.require_same_codebook(params)
    replicated = sharding.replicated(sharding.data_mesh())
    params = jax.device_put(params, replicated)
    evaluation = make_evaluation(model, sharding.data_mesh())
    values = metrics_lib.compute(
        evaluation(params, experiment.eval_batches(dataset.test))
    )
    if has_prior:
        prior, prior_params = restore_prior(workdir.path)
        prior_params = jax.device_put(prior_params, replicated)
        results = _of_prior(prior, prior_params, workdir, experiment)
        results = _of_vqvae(model, values, results) | results
        results["sample_temperature"] = experiment.samples.temperature
        stages = _TWO_STAGES
    else:
        results = {f"test_{name}": value for name, value in values.items()}
        stages = ((experiment.kind, "", "train_images"),)
    results |= _of_samples(workdir)
    if experiment.evaluation.classify_samples:
        results |= _of_classes(workdir, dataset)
    return results | _of_training(workdir, stages)


def _of_vqvae(model: VQVAE, values: dict[str, float], prior: Results) -> Results:
    """Reconstructions, codebook and, where p(x|z) is discrete, bits/dim."""
    image_bits = 8 * model.num_dims
    code_bits = model.num_latents * math.log2(model.num_codes)
    learned_bits = model.num_latents * prior["prior_bits_per_code"]
    results = {
        "test_psnr_db": values["psnr_db"],
        **({"test_ssim": values["ssim"]} if "ssim" in values else {}),
        "test_loss": values["loss"],
        "codebook_perplexity": values["codebook_perplexity"],
        "codebook_active_codes": int(values["codebook_active_codes"]),
        "codebook_codes": model.num_codes * model.num_codebooks,
        "image_bits": image_bits,
        "code_bits": code_bits,
        "code_bits_learned_prior": learned_bits,
        "compression_ratio": image_bits / code_bits,
        "compression_ratio_learned_prior": image_bits / learned_bits,
    }
    if "bits_per_dim_uniform_prior" not in values:
        return results
    for name, bits_per_code in (
        ("uniform", math.log2(model.num_codes)),
        ("learned", prior["prior_bits_per_code"]),
    ):
        results[f"test_bits_per_dim_{name}_prior"] = bounds.bits_per_dim(
            nats_per_dim=values["reconstruction"],
            bits_per_code=bits_per_code,
            num_latents=model.num_latents,
            num_dims=model.num_dims,
        )
    return results


def _of_prior(
    prior: Prior, params, workdir: Workdir, experiment: Experiment
) -> Results:
    """Bits per code on each split, beside those of a prior without context."""
    evaluation = make_evaluation(prior, sharding.data_mesh())
    sources: dict[str, Source] = {split: workdir.codes(split) for split in SPLITS}
    sources["train"] = _drawn(sources["train"], experiment.evaluation.train_grids)
    results: Results = {}
    for split in reversed(SPLITS):
        batches = experiment.eval_batches(sources[split])
        bits = metrics_lib.compute(evaluation(params, batches))["bits_per_code"]
        results["prior_bits_per_code" + ("" if split == "test" else f"_{split}")] = bits
    results["prior_train_grids_evaluated"] = len(sources["train"])
    counts = usage.count_codes(
        workdir.codes("test"), num_codes=experiment.model.num_codes
    )
    results["marginal_bits_per_code"] = usage.marginal_bits_per_code(counts)
    return results


def _drawn(source: Source, n: int) -> Source:
    """Return `n` examples, always the same ones, of a source; all where n is 0."""
    if n == 0 or n >= len(source):
        return source
    return Subset(source, np.sort(permutation(len(source), 0)[:n]))


def _of_samples(workdir: Workdir) -> Results:
    """Samples a second, where there was more than the batch that compiles."""
    with np.load(workdir.samples, allow_pickle=False) as samples:
        speed = float(samples["samples_per_second"])
    return {"samples_per_second": speed} if math.isfinite(speed) else {}


def _of_classes(workdir: Workdir, dataset: Dataset) -> Results:
    """How many samples, and how many real test images, a classifier recognises."""
    train = first_examples(dataset.train, len(dataset.train))
    test = first_examples(dataset.test, len(dataset.test))
    with np.load(workdir.samples, allow_pickle=False) as samples:
        drawn = samples["images"], samples["labels"]
    return {
        name: classifier.class_accuracy(train["image"], train["label"], *those)
        for name, those in (
            ("sample_class_accuracy", drawn),
            ("real_class_accuracy", (test["image"], test["label"])),
        )
    }


def _of_training(workdir: Workdir, stages: Stages) -> Results:
    """Steps done, the best of them by validation, and the median speed, of stages."""
    entries = [json.loads(line) for line in workdir.metrics.read_text().splitlines()]
    results: Results = {}
    for stage, prefix, speed in stages:
        train, validation = (
            [e for e in entries if (e["stage"], e["split"]) == (stage, split)]
            for split in ("train", "validation")
        )
        results[f"{prefix}train_steps"] = validation[-1]["step"]
        # Of equal ones the newest, which is the one that `restore` reads.
        best = min(validation, key=lambda entry: (entry["loss"], -entry["step"]))
        results[f"{prefix}best_step"] = best["step"]
        speeds = [entry["examples_per_second"] for entry in train]
        results[f"{speed}_per_second"] = float(np.median(speeds))
    return results
