"""The figures of a run: what `results.json` holds."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from vqvae_jax import metrics as metrics_lib
from vqvae_jax.data.dataset import Dataset
from vqvae_jax.data.source import (
    Source,
    Subset,
    first_examples,
    permutation,
)
from vqvae_jax.experiment import Experiment
from vqvae_jax.models.second import SECOND_STAGES
from vqvae_jax.models.vqvae import VQVAE
from vqvae_jax.pipeline import classifier, code_usage, rate_distortion
from vqvae_jax.runtime.errors import require
from vqvae_jax.training import sharding
from vqvae_jax.training.evaluate import make_evaluation
from vqvae_jax.training.logging import read_entries
from vqvae_jax.training.state import Model
from vqvae_jax.workdir import (
    SPLITS,
    Workdir,
    restore,
    restore_prior,
)

Results = dict[str, float | int]

# What samples of all kinds have.
_SPEED = {"samples_per_second": "f"}


class OfSecond(NamedTuple):
    """What a VQ-VAE's second stage adds.

    results: figures by name.
    rate_bits: `[N]` -log2 p(z) of each test image; None without a p(z).
    """

    results: Results
    rate_bits: np.ndarray | None = None


MeasureSecond = Callable[[Workdir, Experiment, Dataset], OfSecond]


def measure(
    workdir: Workdir,
    experiment: Experiment,
    dataset: Dataset,
    *,
    measure_second: MeasureSecond | None = None,
) -> tuple[Results, rate_distortion.Bits]:
    """Measure a trained model, and a VQ-VAE's second stage, on the test split.

    Returns a flat dict, where units are part of the names, and the bits of each image.

    Raises:
      UserError: the second stage belongs to another VQ-VAE, or a stage is missing.
    """
    model, params = restore(workdir.path)
    if measure_second is not None:
        workdir.require_same_codebook(params)
    params = sharding.put_replicated(params, sharding.data_mesh())
    evaluation = make_evaluation(model, sharding.data_mesh())
    sums = evaluation(params, experiment.eval_batches(dataset.test))
    values, bits = metrics_lib.compute(sums), metrics_lib.each(sums)
    if measure_second is not None:
        second = measure_second(workdir, experiment, dataset)
        bits = rate_distortion.of_codes(
            bits.get("distortion_bits"),
            num_latents=model.num_latents,
            num_codes=model.num_codes,
            learned_rate=second.rate_bits,
        )
        results = _of_vqvae(model, values, second.results) | second.results
        results["sample_temperature"] = experiment.samples.temperature
    else:
        results = {f"test_{name}": value for name, value in values.items()}
    of_dims = rate_distortion.per_dim(bits, num_dims=math.prod(model.image_shape))
    results |= {f"test_{name}": value for name, value in of_dims.items()}
    results |= of_samples(workdir)
    if experiment.evaluation.classify_samples:
        results |= _of_classes(workdir, dataset)
    results |= of_training(workdir, experiment, counted="images")
    return results, bits


def of_prior(workdir: Workdir, experiment: Experiment, dataset: Dataset) -> OfSecond:
    """Measure the prior over a VQ-VAE's codes."""
    del dataset  # The codes say it all.
    prior, params = restore_prior(workdir.path)
    params = sharding.put_replicated(params, sharding.data_mesh())
    sources: dict[str, Source] = {split: workdir.codes(split) for split in SPLITS}
    results, of_test = bits_of_prior(prior, params, sources, workdir, experiment)
    return OfSecond(results, metrics_lib.each(of_test)["bits"])


def _of_vqvae(model: VQVAE, values: dict[str, float], second: Results) -> Results:
    """Reconstructions, codebook and sizes.

    What a code costs under a learned prior is known where the second stage has one.
    """
    image_bits = 8 * model.num_dims
    bits_per_code = {"uniform": math.log2(model.num_codes)}
    if "prior_bits_per_code" in second:
        bits_per_code["learned"] = second["prior_bits_per_code"]
    code_bits = {
        "" if name == "uniform" else f"_{name}_prior": model.num_latents * bits
        for name, bits in bits_per_code.items()
    }
    results = {
        "test_psnr_db": values["psnr_db"],
        **({"test_ssim": values["ssim"]} if "ssim" in values else {}),
        "test_loss": values["loss"],
        "codebook_perplexity": values["codebook_perplexity"],
        "codebook_active_codes": int(values["codebook_active_codes"]),
        "codebook_codes": model.num_codes * model.num_codebooks,
        "image_bits": image_bits,
        **{f"code_bits{name}": bits for name, bits in code_bits.items()},
        **{
            f"compression_ratio{name}": image_bits / bits
            for name, bits in code_bits.items()
        },
    }
    return results


def bits_of_prior(
    prior: Model,
    params: Any,
    sources: Mapping[str, Source],
    workdir: Workdir,
    experiment: Experiment,
) -> tuple[Results, metrics_lib.Metrics]:
    """Return bits per code on each split, and what was summed up over test.

    Beside those of a prior without context, by frequency alone.
    """
    evaluation = make_evaluation(prior, sharding.data_mesh())
    train = _drawn(sources["train"], experiment.evaluation.train_grids)
    sources = {**sources, "train": train}
    results: Results = {}
    sums = {
        split: evaluation(params, experiment.eval_batches(sources[split]))
        for split in reversed(SPLITS)
    }
    for split, of_split in sums.items():
        name = "prior_bits_per_code" + ("" if split == "test" else f"_{split}")
        results[name] = metrics_lib.compute(of_split)["bits_per_code"]
    results["prior_train_grids_evaluated"] = len(train)
    counts = code_usage.count_codes(
        workdir.codes("test"), num_codes=experiment.model.num_codes
    )
    results["marginal_bits_per_code"] = code_usage.marginal_bits_per_code(counts)
    return results, sums["test"]


def _drawn(source: Source, n: int) -> Source:
    """Return `n` examples, always the same ones, of a source; all where n is 0."""
    if n == 0 or n >= len(source):
        return source
    return Subset(source, np.sort(permutation(len(source), 0)[:n]))


def of_samples(workdir: Workdir) -> Results:
    """Samples a second, where there was more than the batch that compiles."""
    speed = float(workdir.read_samples(_SPEED)["samples_per_second"])
    return {"samples_per_second": speed} if math.isfinite(speed) else {}


def _of_classes(workdir: Workdir, dataset: Dataset) -> Results:
    """How many samples, and how many real test images, a classifier recognises."""
    train = first_examples(dataset.train, len(dataset.train))
    test = first_examples(dataset.test, len(dataset.test))
    samples = workdir.read_samples()
    drawn = samples["images"], samples["labels"]
    return {
        name: classifier.class_accuracy(train["image"], train["label"], *those)
        for name, those in (
            ("sample_class_accuracy", drawn),
            ("real_class_accuracy", (test["image"], test["label"])),
        )
    }


def of_training(workdir: Workdir, experiment: Experiment, *, counted: str) -> Results:
    """Steps done, the best of them by validation, and the median speed, of stages.

    `counted` is what the examples are that the model itself is trained on.
    """
    second = experiment.second
    trained = SECOND_STAGES[second].trained if second else ()
    # A stage that trains, the prefix of its results, and what its speed counts.
    stages = (
        (experiment.kind, "", f"train_{counted}"),
        *((name, f"{name}_", f"{name}_train_grids") for name in trained),
    )
    entries = read_entries(workdir.metrics)
    results: Results = {}
    for stage, prefix, speed in stages:
        train, validation = (
            [e for e in entries if (e["stage"], e["split"]) == (stage, split)]
            for split in ("train", "validation")
        )
        require(
            bool(train and validation),
            f"{workdir.metrics} is damaged: it has no steps of {stage}",
        )
        for entry, name in (
            *((e, "examples_per_second") for e in train),
            *((e, "loss") for e in validation),
        ):
            require(
                name in entry,
                f"{workdir.metrics} is damaged: {stage}, step {entry['step']} has no "
                f"{name}",
            )
        results[f"{prefix}train_steps"] = validation[-1]["step"]
        # Of equal ones the newest, which is the one that `restore` reads.
        best = min(validation, key=lambda entry: (entry["loss"], -entry["step"]))
        results[f"{prefix}best_step"] = best["step"]
        speeds = [entry["examples_per_second"] for entry in train]
        results[f"{speed}_per_second"] = float(np.median(speeds))
    return results
