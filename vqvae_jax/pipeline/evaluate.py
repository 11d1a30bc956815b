"""Evaluate on the test split: the results of `results.json`."""

import collections
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int, UInt8

from vqvae_jax import metrics as metrics_lib
from vqvae_jax.data.codes import count_codes, marginal_bits_per_code
from vqvae_jax.data.dataset import Dataset
from vqvae_jax.data.source import (
    Batch,
    Source,
    Subset,
    first_examples,
    permutation,
    read_whole,
)
from vqvae_jax.experiment import Experiment
from vqvae_jax.image_quality import MEASURES
from vqvae_jax.pipeline.run import Context, SecondStage
from vqvae_jax.runtime.errors import require
from vqvae_jax.training import sharding
from vqvae_jax.training.logging import read_entries
from vqvae_jax.training.loop import make_evaluation
from vqvae_jax.training.step import Model
from vqvae_jax.workdir import Workdir

Results = dict[str, float | int]
# Arrays over images by name; each name contains `bits` once.
Bits = dict[str, Float[np.ndarray, " N"]]

# Vectors from which the mutual information of codebooks is estimated.
_VECTORS = 2**18

_SPEED_SCHEMA = {"samples_per_second": "f"}

# Ends of the names of results under a learned prior, and under one that is given the
# class of the image.
LEARNED = "learned_prior"
_GIVEN_CLASS = "_given_class"


class SecondResults(NamedTuple):
    """The results of a second stage.

    results: values by name, with units in the names.
    rate_bits: `[N]` -log2 p(z) of each test image, by the name of p(z).
    """

    results: Results
    rate_bits: Bits


def evaluate_images(context: Context) -> tuple[Results, Bits]:
    """Evaluate a model of images on the test split.

    Returns a flat dict, with units in the names, and the bits of each image.
    """
    model, values, bits = _evaluate_model(context)
    results = {f"test_{name}": value for name, value in values.items()}
    return _with_common_results(context, model, results, bits), bits


def evaluate_coded_images(
    context: Context, *, second: SecondStage
) -> tuple[Results, Bits]:
    """Evaluate a VQ-VAE of images and its second stage on the test split.

    Returns a flat dict, with units in the names, and the bits of each image.

    Raises:
      UserError: the second stage belongs to another VQ-VAE, or a stage is missing.
    """
    model, values, bits = _evaluate_model(context, has_codes=True)
    found: SecondResults = second.evaluate(context)
    results, bits = _coded_results(
        model,
        values,
        bits,
        found,
        codes=lambda: read_whole(context.workdir.codes("test"))["codes"],
    )
    results["sample_temperature"] = context.experiment.samples.temperature
    return _with_common_results(context, model, results, bits), bits


def evaluate_on(
    model: Any,
    params: Any,
    batches: Callable[[], Iterator[Batch]],
    *,
    prior: tuple[Any, Any] | None = None,
    sum_over_classes: bool = True,
) -> Results:
    """Evaluate a trained model of images, and a prior over its codes, on batches.

    Returns a subset of the results of a run, by the same names.

    Args:
      model: a model of images.
      params: its parameters.
      batches: returns each example once.
      prior: a prior and its parameters.
      sum_over_classes: as in the `evaluation` section.
    """
    mesh = sharding.data_mesh()
    params = sharding.put_replicated(params, mesh)
    values, bits = _computed(make_evaluation(model.evaluate, mesh)(params, batches()))
    if not hasattr(model, "quantizer"):
        results = {f"test_{name}": value for name, value in values.items()}
        return results | _test_bits_per_dim(model, bits)
    second, codes = SecondResults({}, {}), []
    encode = jax.jit(model.encode)

    def grids():
        for batch in batches():
            found = np.asarray(encode(params, batch["image"]))
            codes.append(found[batch["mask"]])
            rest = {name: x for name, x in batch.items() if name != "image"}
            yield {**rest, "codes": found}

    if prior is None:
        collections.deque(grids(), maxlen=0)
    else:
        of_codes, prior_params = prior
        prior_params = sharding.put_replicated(prior_params, mesh)
        evaluation = make_evaluation(_of_test(of_codes, sum_over_classes), mesh)
        second = _prior_results(of_codes, evaluation(prior_params, grids()))
    results, bits = _coded_results(
        model, values, bits, second, codes=lambda: np.concatenate(codes)
    )
    return results | _test_bits_per_dim(model, bits)


def _coded_results(
    model: Any,
    values: dict[str, float],
    bits: Bits,
    second: SecondResults,
    *,
    codes: Callable[[], Int[np.ndarray, "N h w C"]],
) -> tuple[Results, Bits]:
    """Return the results of a VQ-VAE and its second stage, and each image's bits.

    `codes` reads the codes of all images, which only several codebooks need.
    """
    bits = rate_distortion(
        bits.get("distortion_bits"),
        uniform_rate=model.code_bits,
        learned_rates=second.rate_bits,
    )
    results = _vqvae_results(model, values, second.results) | second.results
    if model.grid[-1] > 1:
        results |= _redundancy(codes(), num_codes=model.num_codes)
    return results, bits


def _computed(sums: metrics_lib.Metrics) -> tuple[dict[str, float], Bits]:
    return metrics_lib.compute(sums), metrics_lib.each(sums)


def _test_bits_per_dim(model: Any, bits: Bits) -> Results:
    per_dim = bits_per_dim(bits, num_dims=math.prod(model.image_shape))
    return {f"test_{name}": value for name, value in per_dim.items()}


def _evaluate_model(
    context: Context, *, has_codes: bool = False
) -> tuple[Any, dict[str, float], Bits]:
    """Return the model, its metrics on the test split, and the bits of each image."""
    workdir, experiment, dataset = context
    model, params = workdir.restore()
    if has_codes:
        workdir.require_same_codebook(model, params)
    params = sharding.put_replicated(params, sharding.data_mesh())
    evaluation = make_evaluation(model.evaluate, sharding.data_mesh())
    sums = evaluation(params, experiment.eval_batches(dataset.test))
    return model, *_computed(sums)


def _with_common_results(
    context: Context, model: Any, results: Results, bits: Bits
) -> Results:
    """Add bits/dim, and the results of samples and of training."""
    workdir, experiment, dataset = context
    results |= _test_bits_per_dim(model, bits)
    results |= sampling_speed(workdir)
    if experiment.evaluation.classify_samples:
        results |= _class_accuracies(workdir, dataset)
    return results | training_results(workdir, experiment, counted="images")


def _vqvae_results(model: Any, values: dict[str, float], second: Results) -> Results:
    """Return the results of reconstructions and codebook, and sizes in bits.

    Sizes under a learned prior are included if the second stage has one.
    """
    image_bits = 8 * model.num_dims
    code_bits = {"": model.code_bits}
    for end in ("", _GIVEN_CLASS):
        if f"prior_bits_per_code{end}" in second:
            learned = model.num_latents * second[f"prior_bits_per_code{end}"]
            code_bits[f"_{LEARNED}{end}"] = learned
    return {
        **{f"test_{name}": values[name] for name in MEASURES if name in values},
        "test_loss": values["loss"],
        "codebook_perplexity": values["codebook_perplexity"],
        "codebook_active_codes": int(values["codebook_active_codes"]),
        "codebook_codes": model.num_codes * model.grid[-1],
        "z_e_effective_rank": int(values["z_e_effective_rank"]),
        "image_bits": image_bits,
        **{f"code_bits{name}": bits for name, bits in code_bits.items()},
        **{
            f"compression_ratio{name}": image_bits / bits
            for name, bits in code_bits.items()
        },
    }


def _redundancy(codes: Int[np.ndarray, "N h w C"], *, num_codes: int) -> Results:
    """Return the mutual information of pairs of codebooks."""
    vectors = codes.reshape(-1, codes.shape[-1])
    rows = permutation(len(vectors), 0)[:_VECTORS]
    shared = metrics_lib.mutual_information(vectors[rows], num_codes=num_codes)
    return {
        "codebook_mutual_information_bits": float(shared.mean()),
        "codebook_mutual_information_bits_max": float(shared.max()),
    }


def evaluate_prior_bits(
    prior: Model,
    params: Any,
    sources: Mapping[str, Source],
    workdir: Workdir,
    experiment: Experiment,
) -> SecondResults:
    """Return bits per code on each split, and the rates of the test images.

    The results include the bits of a prior without context, the entropy of the codes.
    """
    mesh = sharding.data_mesh()
    train = _drawn(sources["train"], experiment.evaluation.train_grids)
    of_test = make_evaluation(
        _of_test(prior, experiment.evaluation.sum_over_classes), mesh
    )
    found = _prior_results(
        prior, of_test(params, experiment.eval_batches(sources["test"]))
    )
    evaluation = make_evaluation(prior.evaluate, mesh)
    given = _GIVEN_CLASS if _num_classes(prior) else ""
    results = dict(found.results)
    for split, source in (("validation", sources["validation"]), ("train", train)):
        sums = evaluation(params, experiment.eval_batches(source))
        bits_per_code = metrics_lib.compute(sums)["bits_per_code"]
        results[f"prior_bits_per_code{given}_{split}"] = bits_per_code
    results["prior_train_grids_evaluated"] = len(train)
    counts = count_codes(workdir.codes("test"), num_codes=experiment.model.num_codes)
    results["marginal_bits_per_code"] = marginal_bits_per_code(counts)
    return found._replace(results=results)


def _num_classes(prior: Model) -> int:
    """Return the number of classes of images; a prior of speech has none."""
    return getattr(prior, "num_classes", 0)


def _of_test(prior: Model, sum_over_classes: bool) -> Any:
    """Return the method that evaluates a prior on the test split."""
    is_summed = sum_over_classes and _num_classes(prior) > 0
    return prior.evaluate_with_marginal if is_summed else prior.evaluate


def _prior_results(prior: Model, sums: metrics_lib.Metrics) -> SecondResults:
    """Return bits per code and the rates of images.

    Without the bits of the class, -log2 p(z given its class) is not the rate of an
    image: the rate is that of p(z), the mean over classes.
    """
    means, bits = _computed(sums)
    end = _GIVEN_CLASS if _num_classes(prior) else ""
    results = {f"prior_bits_per_code{end}": means["bits_per_code"]}
    rates = {f"{LEARNED}{end}": bits["bits"]} if "bits" in bits else {}
    if "marginal_bits" in bits:
        marginal = bits["marginal_bits"]
        mean = float(np.mean(marginal, dtype=np.float64))
        results = {"prior_bits_per_code": mean / math.prod(prior.grid), **results}
        rates = {LEARNED: marginal, **rates}
    return SecondResults(results, rates)


def rate_distortion(
    distortion: Float[np.ndarray, " N"] | None,
    *,
    uniform_rate: float,
    learned_rates: Bits,
) -> Bits:
    """Return rates, distortion and their sums of coded images, in bits per image.

    The distortion is -log2 p(x|z), where p(x|z) is a distribution over the 256 values
    of each dimension of the image; the rate is the cost of the latents. Their sum is
    the lower bound on log p(x) of section 3.

    Names end with the prior that they depend on: `uniform_prior`, under which all
    combinations of codes are equally likely, or the name of a learned one.

    Args:
      distortion: -log2 p(x|z_q); None where p(x|z) is a density, without a bound.
      uniform_rate: -log2 p(z) under the uniform prior.
      learned_rates: -log2 p(z) under each learned prior, by name.
    """
    measured = [*learned_rates.values(), *([] if distortion is None else [distortion])]
    if not measured:
        return {}
    uniform = np.full(measured[0].shape, uniform_rate)
    rates = {"uniform_prior": uniform, **learned_rates}
    bits = {f"rate_bits_{prior}": rate for prior, rate in rates.items()}
    if distortion is not None:
        bits["distortion_bits"] = distortion
        bits |= {f"bits_{prior}": distortion + rate for prior, rate in rates.items()}
    return bits


def bits_per_dim(bits: Bits, *, num_dims: int) -> Mapping[str, float]:
    """Return the means over images, divided by the values of an image."""
    return {
        name.replace("bits", "bits_per_dim"): float(np.mean(values, dtype=np.float64))
        / num_dims
        for name, values in bits.items()
    }


def _drawn(source: Source, n: int) -> Source:
    """Return a fixed random subset of `n` examples of a source; all for n = 0."""
    if n == 0 or n >= len(source):
        return source
    return Subset(source, np.sort(permutation(len(source), 0)[:n]))


def sampling_speed(workdir: Workdir) -> Results:
    """Return the samples per second; {} if only the compiling batch was timed."""
    speed = float(workdir.read_samples(_SPEED_SCHEMA)["samples_per_second"])
    return {"samples_per_second": speed} if math.isfinite(speed) else {}


def _class_accuracies(workdir: Workdir, dataset: Dataset) -> Results:
    """Return a classifier's accuracy on the samples and on real test images."""
    train = first_examples(dataset.train, len(dataset.train))
    test = first_examples(dataset.test, len(dataset.test))
    samples = workdir.read_samples()
    drawn = samples["images"], samples["labels"]
    return {
        name: class_accuracy(train["image"], train["label"], *labelled)
        for name, labelled in (
            ("sample_class_accuracy", drawn),
            ("real_class_accuracy", (test["image"], test["label"])),
        )
    }


def class_accuracy(
    train_images: UInt8[np.ndarray, "N H W C"],
    train_labels: Int[np.ndarray, " N"],
    images: UInt8[np.ndarray, "M H W C"],
    labels: Int[np.ndarray, " M"],
) -> float:
    """Return the accuracy on `images` of a classifier trained on real images.

    The classifier is scikit-learn's support vector machine on pixels, which recognises
    99 % of real handwritten digits; it suits small, simple images only.
    """
    # Imported here because it takes seconds.
    from sklearn.svm import SVC

    classifier = SVC().fit(_pixels(train_images), train_labels)
    return float(np.mean(classifier.predict(_pixels(images)) == labels))


def _pixels(images):
    return images.reshape(len(images), -1) / 255.0


def training_results(
    workdir: Workdir, experiment: Experiment, *, counted: str
) -> Results:
    """Return steps, best step by validation and median speed of each training stage.

    `counted` names the examples of the first model in the names of its speed.
    """
    trained = experiment.second_spec.variants if experiment.second_stage else ()
    # Name of a stage, prefix of its results, and prefix of its speed.
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
        # Parameters that are kept as they were have a validation only.
        is_trained = bool(validation) and validation[-1]["step"] > 0
        require(
            bool(validation) and bool(train) == is_trained,
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
        # The newest of equal losses, as `restore` selects.
        best = min(validation, key=lambda entry: (entry["loss"], -entry["step"]))
        results[f"{prefix}best_step"] = best["step"]
        if is_trained:
            speeds = [entry["examples_per_second"] for entry in train]
            results[f"{speed}_per_second"] = float(np.median(speeds))
    return results
