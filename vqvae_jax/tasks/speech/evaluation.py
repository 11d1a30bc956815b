"""How well speech is coded, and what its codes say (section 4.3)."""

import collections
import functools
import math
import warnings
from collections.abc import Iterator

import jax
import numpy as np
from jaxtyping import Int

from vqvae_jax import metrics as metrics_lib
from vqvae_jax.experiment import Experiment
from vqvae_jax.pipeline.evaluate import (
    Results,
    bits_of_prior,
    of_samples,
    of_training,
)
from vqvae_jax.runtime import distributed
from vqvae_jax.tasks.speech import phonemes, phones
from vqvae_jax.tasks.speech.code_ablation import of_another, shuffled_in_time
from vqvae_jax.tasks.speech.conversion import of_conversions
from vqvae_jax.tasks.speech.dataset import SpeechDataset
from vqvae_jax.tasks.speech.model import SpeechVQVAE
from vqvae_jax.tasks.speech.utterances import Utterances
from vqvae_jax.tasks.speech.windows import WindowsSource
from vqvae_jax.training import sharding
from vqvae_jax.training.evaluate import make_evaluation
from vqvae_jax.workdir import (
    SPLITS,
    Workdir,
    restore,
    restore_second,
)


def measure_speech(
    workdir: Workdir, experiment: Experiment, dataset: SpeechDataset
) -> tuple[Results, Int[np.ndarray, "P P"] | None]:
    """Measure a trained model of speech, and its prior, on the test split.

    Returns a flat dict, where units are part of the names, and how often each phone was
    taken for each; None where phones are not known, on train and on test.

    Raises:
      UserError: codes or prior belong to another model, or a stage is missing.
    """
    model, params = restore(workdir.path)
    workdir.require_same_codebook(params)
    params = sharding.put_replicated(params, sharding.data_mesh())
    evaluation = make_evaluation(model, sharding.data_mesh())
    batches = experiment.utterance_batches(dataset.test)
    values = metrics_lib.compute(evaluation(params, batches))
    results: Results = {
        "test_loss": values["loss"],
        "test_bits_per_sample": values["bits_per_sample"],
        "test_bits_per_sample_codes_moved": values["bits_per_sample_codes_moved"],
        **_of_other_codes(model, params, experiment, dataset.test),
        "codebook_perplexity": values["codebook_perplexity"],
        "codebook_active_codes": int(values["codebook_active_codes"]),
        "codebook_codes": model.num_codes,
        **_of_rates(model, dataset),
    }
    if experiment.second is not None:
        results |= _of_prior(workdir, experiment)
    of_phonemes, confusion = _of_phonemes(workdir, experiment, dataset, model)
    results |= of_phonemes
    results |= of_conversions(workdir, model, params, dataset)
    results |= of_samples(workdir)
    results["sample_temperature"] = experiment.samples.temperature
    return results | of_training(workdir, experiment, counted="crops"), confusion


def _of_phonemes(
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
        # The tables of phones are beside some of the recordings only.
        warnings.warn(f"phonemes are not measured: {unknown}", stacklevel=2)
        return {}, None
    results: Results = {
        "phoneme_accuracy": scores.accuracy,
        "phoneme_chance_accuracy": scores.chance,
        "phoneme_shuffled_codes_accuracy": scores.shuffled,
        "phoneme_frames": scores.frames,
    }
    return results, scores.confusion


def _of_rates(model: SpeechVQVAE, dataset: SpeechDataset) -> Results:
    """What a second costs, as the data have it and as codes."""
    audio = 16 * dataset.sample_rate
    codes = dataset.sample_rate / model.downsampling * math.log2(model.num_codes)
    return {
        "audio_bits_per_second": audio,
        "code_bits_per_second": codes,
        "compression_ratio": audio / codes,
    }


def _of_other_codes(
    model: SpeechVQVAE, params, experiment: Experiment, test: Utterances
) -> Results:
    """Bits per sample given codes that are not the utterance's own.

    A decoder that ignores its codes would not notice.
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
    for batch in experiment.utterance_batches(test):
        spoken = distributed.whole(batch["mask"].sum(axis=1))
        lengths = model.num_latents(spoken)
        placed = sharding.put_batch(batch, mesh)
        codes = np.asarray(encode(params, placed["audio"], placed["mask"]))
        for name, changed in (
            ("codes_shuffled", shuffled_in_time(codes, lengths, generator)),
            ("other_codes", of_another(codes, lengths, before=before)),
        ):
            if changed is None:
                continue
            samples[name] += int(spoken.sum())
            own = {"codes": distributed.own_rows(changed)}
            given = sharding.put_batch(own, mesh)["codes"]
            nats[name] -= float(log_prob(params, placed, given))
        last = np.flatnonzero(lengths)[-1]
        before = codes[last, : lengths[last]]
    return {
        f"test_bits_per_sample_{name}": total / samples[name] / math.log(2)
        for name, total in nats.items()
    }


def _of_prior(workdir: Workdir, experiment: Experiment) -> Results:
    prior, params = restore_second(workdir.path, experiment.second)
    params = sharding.put_replicated(params, sharding.data_mesh())
    length = prior.latents
    sources = {
        split: WindowsSource(workdir.codes(split), length=length, stride=length)
        for split in SPLITS
    }
    return bits_of_prior(prior, params, sources, workdir, experiment)[0]


def _frames(
    workdir: Workdir, dataset: SpeechDataset, split: str, frame: int
) -> Iterator[phonemes.Frames]:
    """Yield the codes of each utterance, and the phone in the middle of each."""
    codes, utterances = workdir.codes(split), getattr(dataset, split)
    for number in range(len(codes)):
        coded = codes[number]
        length = int(coded["length"])
        said = utterances[int(coded["index"])]["phones"]
        yield phonemes.Frames(
            coded["codes"][:length, 0],
            phones.on_frames(said, num_frames=length, frame=frame),
        )
