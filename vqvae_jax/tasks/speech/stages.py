"""The stages of speech (section 4.3): train on crops, encode utterances, go on."""

import functools

import numpy as np

from vqvae_jax.data import codes as codes_lib
from vqvae_jax.data.source import Source
from vqvae_jax.pipeline.codes import (
    Encode,
    Encoded,
    train_on_codes,
    write_splits,
)
from vqvae_jax.pipeline.stage import (
    Context,
    Stage,
    fit_model,
    write_page,
)
from vqvae_jax.runtime import distributed
from vqvae_jax.tasks.speech.evaluation import measure_speech
from vqvae_jax.tasks.speech.model import SpeechVQVAE
from vqvae_jax.tasks.speech.prior import SequencePrior
from vqvae_jax.tasks.speech.report import build_speech
from vqvae_jax.tasks.speech.synthesis import sample_speech
from vqvae_jax.tasks.speech.utterances import UNKNOWN, Crop, Utterances
from vqvae_jax.tasks.speech.windows import WindowsSource
from vqvae_jax.training.early_stopping import is_marked
from vqvae_jax.workdir import Workdir


def stages_of_speech(second: str | None) -> dict[str, Stage]:
    """Return the stages of a model of speech, by name and in order."""
    of_prior = {}
    if second is not None:
        of_prior[second] = Stage(
            lambda workdir: is_marked(workdir.checkpoints(second)),
            functools.partial(train_on_codes, stage=second, examples=windows),
        )
    return {
        "speech": Stage(
            lambda workdir: is_marked(workdir.checkpoints("speech")), train_on_crops
        ),
        "codes": Stage(Workdir.has_codes, encode_utterances),
        **of_prior,
        "samples": Stage(lambda workdir: workdir.samples.exists(), sample_speech),
        "evaluate": Stage(lambda workdir: workdir.results.exists(), evaluate_speech),
        "report": Stage(
            lambda workdir: workdir.report.exists(),
            functools.partial(write_page, build=build_speech),
        ),
    }


def train_on_crops(context: Context) -> None:
    """Fit the model to crops of utterances; validate on whole ones."""
    _, experiment, dataset = context
    examples, config = dataset.train, experiment.training
    crop = Crop(experiment.data.crop_samples)
    fit_model(
        context,
        train=experiment.train_batches(examples, config, augment=crop),
        init_batch=experiment.init_batch(examples, config, augment=crop),
        validation=lambda: experiment.utterance_batches(dataset.validation),
    )


def encode_utterances(context: Context) -> None:
    """Encode each split once, whole utterances, and keep the codes as array_record.

    Each has as many codes as the longest of its split, of which `length` count, and
    `index`, which of the split it is: the shortest are encoded first.
    """
    _, experiment, dataset = context

    def encoded(source: Utterances, model: SpeechVQVAE, encode: Encode) -> Encoded:
        longest = model.num_latents(int(source.lengths.max()))
        for batch in experiment.utterance_batches(source):
            codes = encode(batch, "audio", "mask")[:, :longest]
            columns = {k: batch[k] for k in ("speaker", "sentence", "index")}
            columns["length"] = model.num_latents(batch["mask"].sum(axis=1))
            columns = distributed.whole(columns)
            whole = np.zeros((len(codes), longest, 1), np.int32)
            whole[:, : codes.shape[1], 0] = codes
            kept = columns["index"] != UNKNOWN
            yield whole[kept], {k: v[kept] for k, v in columns.items()}

    write_splits(context, encoded, class_names=dataset.speaker_names)


def windows(
    codes: codes_lib.CodesSource, model: SequencePrior, *, split: str
) -> Source:
    """Return the examples of a model of sequences.

    To train on windows from every code on; otherwise each code is in one of them.
    """
    stride = 1 if split == "train" else model.latents
    return WindowsSource(codes, length=model.latents, stride=stride)


def evaluate_speech(context: Context) -> None:
    """Measure on the test split, which nothing before has seen."""
    workdir, experiment, dataset = context
    results, confusion = measure_speech(workdir, experiment, dataset)
    if confusion is not None:
        workdir.write_arrays(
            workdir.phones,
            confusion=confusion,
            phone_names=np.array(dataset.phone_names, dtype=str),
        )
    # Last: with the results the stage is finished.
    workdir.write_json(workdir.results, results)
