"""Evaluation of speech and of its codes (section 4.3)."""

import collections
import functools
import math
import warnings
from collections.abc import Iterator

import jax
import numpy as np
from jaxtyping import Int

from vqvae_jax import metrics as metrics_lib
from vqvae_jax.data.source import Batch
from vqvae_jax.experiment import Experiment
from vqvae_jax.pipeline.evaluate import (
    Results,
    evaluate_prior_bits,
    sampling_speed,
    training_results,
)
from vqvae_jax.runtime import distributed
from vqvae_jax.tasks.speech import phonemes, phones
from vqvae_jax.tasks.speech.code_ablation import (
    codes_of_another_utterance,
    shuffle_in_time,
)
from vqvae_jax.tasks.speech.conversion import evaluate_conversions
from vqvae_jax.tasks.speech.dataset import SpeechDataset
from vqvae_jax.tasks.speech.model import SpeechVQVAE
from vqvae_jax.tasks.speech.utterances import Utterances, utterance_batches
from vqvae_jax.tasks.speech.windows import WindowsSource
from vqvae_jax.training import sharding
from vqvae_jax.training.loop import make_evaluation
from vqvae_jax.workdir import SPLITS, Workdir


def utterances_of(
    experiment: Experiment, source: Utterances, *, phones: bool = False
) -> Iterator[Batch]:
    """Return this process's batches of whole utterances, each once.

    Args:
      experiment: determines the batch size and the samples per code.
      source: the utterances.
      phones: whether to add the phone at the middle of each code.
    """
    downsampling = experiment.model.downsampling
    # Multiples of a second, because each length is compiled separately.
    multiple = -(-experiment.data.sample_rate // downsampling) * downsampling
    return utterance_batches(
        source,
        multiple_of=multiple,
        frame=downsampling if phones else None,
        **experiment.eval_sizes,
    )


def measure_speech(
    workdir: Workdir, experiment: Experiment, dataset: SpeechDataset
) -> tuple[Results, Int[np.ndarray, "P P"] | None]:
    """Evaluate a trained model of speech, and its prior, on the test split.

    Returns a flat dict, with units in the names, and the confusion matrix of phones,
    None if phones of train or test are unknown.

    Raises:
      UserError: the codes or the prior belong to another model, or a stage is missing.
    """
    model, params = workdir.restore()
    workdir.require_same_codebook(model, params)
    params = sharding.put_replicated(params, sharding.data_mesh())
    evaluation = make_evaluation(model, sharding.data_mesh())
    batches = utterances_of(experiment, dataset.test)
    values = metrics_lib.compute(evaluation(params, batches))
    results: Results = {
        "test_loss": values["loss"],
        "test_bits_per_sample": values["bits_per_sample"],
        "test_bits_per_sample_codes_moved": values["bits_per_sample_codes_moved"],
        **_code_ablation(model, params, experiment, dataset.test),
        "codebook_perplexity": values["codebook_perplexity"],
        "codebook_active_codes": int(values["codebook_active_codes"]),
        "codebook_codes": model.num_codes,
        **_rates(model, dataset),
    }
    if experiment.second_stage is not None:
        results |= _prior_results(workdir, experiment)
    phoneme_results, confusion = _phoneme_results(workdir, experiment, dataset, model)
    results |= phoneme_results
    results |= evaluate_conversions(workdir, model, params, dataset)
    results |= sampling_speed(workdir)
    results["sample_temperature"] = experiment.samples.temperature
    return results | training_results(workdir, experiment, counted="crops"), confusion


def _phoneme_results(
    workdir: Workdir,
    experiment: Experiment,
    dataset: SpeechDataset,
    model: SpeechVQVAE,
) -> tuple[Results, Int[np.ndarray, "P P"] | None]:
    if not dataset.phone_names:
        return {}, None
    try:
        scores = phonemes.score(
            _frames(workdir, dataset, "train", model.downsampling),
            _frames(workdir, dataset, "test", model.downsampling),
            num_codes=model.num_codes,
            num_phones=len(dataset.phone_names),
            seed=experiment.seed,
        )
    except phonemes.UnknownPhones as unknown:
        # Only some recordings have tables of phones.
        warnings.warn(f"phonemes are not measured: {unknown}", stacklevel=2)
        return {}, None
    results: Results = {
        "phoneme_accuracy": scores.accuracy,
        "phoneme_chance_accuracy": scores.chance,
        "phoneme_shuffled_codes_accuracy": scores.shuffled,
        "phoneme_frames": scores.frames,
    }
    return results, scores.confusion


def _rates(model: SpeechVQVAE, dataset: SpeechDataset) -> Results:
    """Return the bits of a second of audio and of its codes."""
    audio = 16 * dataset.sample_rate
    codes = dataset.sample_rate / model.downsampling * math.log2(model.num_codes)
    return {
        "audio_bits_per_second": audio,
        "code_bits_per_second": codes,
        "compression_ratio": audio / codes,
    }


def _code_ablation(
    model: SpeechVQVAE, params, experiment: Experiment, test: Utterances
) -> Results:
    """Return bits per sample given codes other than the utterance's own.

    They equal those given its own codes where the decoder ignores its codes.
    """
    mesh = sharding.data_mesh()
    replicated = sharding.replicated(mesh)
    encode = jax.jit(model.encode, out_shardings=replicated)

    @functools.partial(jax.jit, out_shardings=replicated)
    def log_prob(params, batch, codes):
        return model.log_prob(
            params,
            batch["audio"],
            codes,
            speakers=batch["speaker"],
            mask=batch["mask"],
        ).sum()

    generator = np.random.default_rng(experiment.seed)
    nats, samples = collections.Counter(), collections.Counter()
    before = None
    for batch in utterances_of(experiment, test):
        num_samples = distributed.whole(batch["mask"].sum(axis=1))
        lengths = model.num_latents(num_samples)
        on_devices = sharding.put_batch(batch, mesh)
        codes = np.asarray(encode(params, on_devices["audio"], on_devices["mask"]))
        for name, changed in (
            ("codes_shuffled", shuffle_in_time(codes, lengths, generator)),
            ("other_codes", codes_of_another_utterance(codes, lengths, before=before)),
        ):
            if changed is None:
                continue
            samples[name] += int(num_samples.sum())
            share = {"codes": distributed.own_rows(changed)}
            given = sharding.put_batch(share, mesh)["codes"]
            nats[name] -= float(log_prob(params, on_devices, given))
        last = np.flatnonzero(lengths)[-1]
        before = codes[last, : lengths[last]]
    return {
        f"test_bits_per_sample_{name}": total / samples[name] / math.log(2)
        for name, total in nats.items()
    }


def _prior_results(workdir: Workdir, experiment: Experiment) -> Results:
    prior, params = workdir.restore(experiment.second_stage)
    params = sharding.put_replicated(params, sharding.data_mesh())
    length = prior.latents
    sources = {
        split: WindowsSource(workdir.codes(split), length=length, stride=length)
        for split in SPLITS
    }
    return evaluate_prior_bits(prior, params, sources, workdir, experiment)[0]


def _frames(
    workdir: Workdir, dataset: SpeechDataset, split: str, frame: int
) -> Iterator[phonemes.Frames]:
    """Yield the codes of each utterance, and the phone at the middle of each code."""
    codes, utterances = workdir.codes(split), getattr(dataset, split)
    for number in range(len(codes)):
        coded = codes[number]
        length = int(coded["length"])
        segments = utterances[int(coded["index"])]["phones"]
        yield phonemes.Frames(
            coded["codes"][:length, 0],
            phones.on_frames(segments, num_frames=length, frame=frame),
        )
