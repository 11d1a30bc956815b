"""The stages of speech (section 4.3): train on crops, encode whole utterances."""

import numpy as np

from vqvae_jax import registry
from vqvae_jax.data import codes as codes_lib
from vqvae_jax.data.source import Source
from vqvae_jax.experiment import Experiment
from vqvae_jax.pipeline.codes import (
    Encode,
    Encoded,
    second_training_stages,
    write_splits,
)
from vqvae_jax.pipeline.evaluate import Results
from vqvae_jax.pipeline.run import (
    Context,
    SecondStage,
    Stage,
    final_stages,
    sampling_stage,
    training_stage,
)
from vqvae_jax.runtime import distributed
from vqvae_jax.tasks.speech.evaluation import measure_speech, utterances_of
from vqvae_jax.tasks.speech.model import SpeechVQVAE
from vqvae_jax.tasks.speech.prior import SequencePrior
from vqvae_jax.tasks.speech.report import build_speech_page
from vqvae_jax.tasks.speech.synthesis import sample_speech
from vqvae_jax.tasks.speech.utterances import UNKNOWN, Crop, Utterances
from vqvae_jax.tasks.speech.windows import WindowsSource
from vqvae_jax.training.loop import Run, fit
from vqvae_jax.workdir import Workdir


def speech_stages(experiment: Experiment) -> dict[str, Stage]:
    """Return the stages of a model of speech, by name in order."""
    second_stages = {}
    if experiment.second_stage is not None:
        second = registry.load(experiment.second_spec.stage)
        second_stages = second_training_stages(experiment, second)
    return {
        "speech": training_stage("speech", train_on_crops),
        "codes": Stage(Workdir.has_codes, encode_utterances),
        **second_stages,
        "samples": sampling_stage(sample_speech),
        **final_stages(evaluate_speech, lambda context: build_speech_page(*context)),
    }


def train_on_crops(context: Context) -> None:
    """Fit the model to crops of utterances; validate on whole ones."""
    workdir, experiment, dataset = context
    examples, config = dataset.train, experiment.training
    crop = Crop(experiment.data.crop_samples)
    run = Run(
        stage=experiment.kind,
        workdir=workdir.path,
        seed=experiment.seed,
        train=experiment.train_batches(examples, config, augment=crop),
        validation=lambda: utterances_of(experiment, dataset.validation),
        init_batch=experiment.init_batch(examples, config, augment=crop),
    )
    fit(experiment.model, config, run)


def encode_utterances(context: Context) -> None:
    """Encode whole utterances of each split and write the codes as array_record.

    Codes are padded to the longest utterance of the split. The column `length` is their
    number. The column `index` is the position in the split: the shortest utterances are
    encoded first.
    """
    _, experiment, dataset = context

    def encoded(source: Utterances, model: SpeechVQVAE, encode: Encode) -> Encoded:
        longest = model.num_latents(int(source.lengths.max()))
        for batch in utterances_of(experiment, source):
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
    """Return the windows to train or evaluate on.

    Training windows start at every code; others do not overlap.
    """
    stride = 1 if split == "train" else model.latents
    return WindowsSource(codes, length=model.latents, stride=stride)


def evaluate_speech(context: Context) -> tuple[Results, dict[str, np.ndarray]]:
    """Evaluate on the test split; write the confusion matrix of phonemes."""
    workdir, experiment, dataset = context
    results, confusion = measure_speech(workdir, experiment, dataset)
    if confusion is not None:
        workdir.write_arrays(
            workdir.phones,
            confusion=confusion,
            phone_names=np.array(dataset.phone_names, dtype=str),
        )
    return results, {}


# The model of speech evaluates and reports it together with itself.
SEQUENCE_PRIOR = SecondStage(sample=sample_speech, examples=windows)
