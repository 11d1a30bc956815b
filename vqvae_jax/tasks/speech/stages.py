"""The stages of speech (section 4.3): train on crops, encode whole utterances, sample.

Samples are test utterances decoded in their own and in other voices.
"""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Int, Int16

from vqvae_jax import registry
from vqvae_jax.data import codes as codes_lib
from vqvae_jax.data.source import (
    Example,
    Source,
    evenly_spaced,
    read_columns,
    read_many,
    stack,
)
from vqvae_jax.experiment import Experiment
from vqvae_jax.pipeline.codes import (
    Encode,
    Encoded,
    second_training_stages,
    write_splits,
)
from vqvae_jax.pipeline.initial import initial_params
from vqvae_jax.pipeline.run import (
    Context,
    SecondStage,
    Stage,
    final_stages,
    sampling_stage,
    training_stage,
)
from vqvae_jax.pipeline.samples import file_name, rows_to_draw
from vqvae_jax.runtime import distributed
from vqvae_jax.tasks.speech.audio import wav
from vqvae_jax.tasks.speech.evaluation import evaluate_speech, utterances_of
from vqvae_jax.tasks.speech.model import SpeechVQVAE
from vqvae_jax.tasks.speech.prior import SequencePrior
from vqvae_jax.tasks.speech.report import build_speech_page
from vqvae_jax.tasks.speech.utterances import UNKNOWN, Crop, Utterances, WindowsSource
from vqvae_jax.training import sharding
from vqvae_jax.training.loop import Run, fit
from vqvae_jax.workdir import Workdir

# Key, codes [B, N], their numbers [B] and speakers [B] -> audio [B, T].
Synthesise = Callable[[jax.Array, np.ndarray, np.ndarray, np.ndarray], np.ndarray]


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
        **final_stages(evaluate_speech, build_speech_page),
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
        initial=initial_params(config, experiment.kind),
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


class Chosen(NamedTuple):
    """Utterances of test to synthesise.

    rows: `[M]`, indices of the split's codes.
    voices: `[M, 2]`, speakers to decode with: the utterance's own if train has it, then
      another one.
    """

    rows: Int[np.ndarray, " M"]
    voices: Int[np.ndarray, "M 2"]


def sample_speech(context: Context) -> None:
    """Decode codes of test utterances, and codes drawn from the prior, to audio.

    For M utterances of the test split, `samples.npz` has `index` [M], `speakers` [M],
    `codes` [M, N] with their numbers `code_lengths` [M], `voices` [M, 2], the speakers
    that each was decoded with, and `audio` [M, 2, T]. With a prior, `drawn_codes`,
    `drawn_voices` and `drawn_audio` are samples of codes, voices and audio. All audio
    is also written to `samples/` as WAV.
    """
    workdir, experiment, dataset = context
    config = experiment.samples
    model, params = workdir.restore()
    workdir.require_same_codebook(model, params)
    params = sharding.put_replicated(params, sharding.data_mesh())
    options = config.draw_options_without_labels

    @jax.jit
    def decode(params, key, codes, mask, speakers):
        return model.decode(params, key, codes, mask=mask, speakers=speakers, **options)

    test_key, prior_key, drawn_key = jax.random.split(
        jax.random.key(experiment.seed + 2), 3
    )

    def synthesise(key, codes, lengths, speakers):
        mask = np.arange(codes.shape[1]) < lengths[:, None]
        return np.asarray(decode(params, key, codes, mask, speakers))

    chosen = choose_utterances(
        workdir.codes("test"), config.num_samples, num_speakers=model.num_speakers
    )
    test = stack(read_many(workdir.codes("test"), chosen.rows.tolist()))
    codes = test["codes"][:, : int(test["length"].max()), 0]
    audio, speed = synthesise_all(
        synthesise,
        test_key,
        np.repeat(codes, 2, axis=0),
        np.repeat(test["length"], 2),
        chosen.voices.reshape(-1),
        batch_size=config.batch_size,
    )
    arrays = {
        "index": test["index"],
        "speakers": test["speaker"],
        "codes": codes,
        "code_lengths": test["length"],
        "voices": chosen.voices,
        "audio": audio.reshape(len(codes), 2, -1),
    }
    if experiment.second_stage is not None:
        prior, prior_params = workdir.restore(experiment.second_stage)
        voices = np.arange(config.num_samples, dtype=np.int32) % model.num_speakers
        size = min(config.batch_size, len(voices))
        starts = range(0, len(voices), size)
        drawn = [
            prior.sample(
                prior_params,
                key,
                num_samples=size,
                # The last batch repeats speakers, so that all batches have one size.
                speakers=np.resize(voices[start:], size) if prior.conditional else None,
                **options,
            )
            for key, start in zip(
                jax.random.split(prior_key, len(starts)), starts, strict=True
            )
        ]
        arrays["drawn_codes"] = np.concatenate(drawn)[: len(voices)]
        arrays["drawn_voices"] = voices
        arrays["drawn_audio"], _ = synthesise_all(
            synthesise,
            drawn_key,
            arrays["drawn_codes"],
            np.full(len(voices), prior.latents),
            voices,
            batch_size=config.batch_size,
        )
    _write_sounds(context, arrays)
    workdir.write_arrays(
        workdir.samples, **arrays, samples_per_second=speed, rate=dataset.sample_rate
    )


def choose_utterances(
    codes: Source | Sequence[Example], n: int, *, num_speakers: int
) -> Chosen:
    """Choose up to n utterances, and the speakers to decode each with.

    Utterances whose sentence is also spoken by another speaker of train are preferred.
    That speaker is then the other voice, so that the conversion can be compared.
    """
    columns = read_columns(codes, "speaker", "sentence", "index")
    speakers, sentences = columns["speaker"], columns["sentence"]
    known = (speakers != UNKNOWN) & (sentences != UNKNOWN)

    def others(row: int) -> np.ndarray:
        same = known & (sentences == sentences[row]) & (speakers != speakers[row])
        return np.unique(speakers[same])

    order = np.argsort(columns["index"], kind="stable").tolist()
    comparable = [row for row in order if known[row] and len(others(row))]
    pool = comparable or order
    rows = [pool[index] for index in evenly_spaced(len(pool), n)]
    voices = np.zeros((len(rows), 2), np.int32)
    for index, row in enumerate(rows):
        own = speakers[row] if speakers[row] != UNKNOWN else index % num_speakers
        choices = others(row) if known[row] else []
        if not len(choices):
            choices = [s for s in range(num_speakers) if s != own] or [own]
        voices[index] = own, choices[index % len(choices)]
    return Chosen(np.array(rows), voices)


def synthesise_all(
    synthesise: Synthesise,
    key: jax.Array,
    codes: Int[np.ndarray, "M N"],
    lengths: Int[np.ndarray, " M"],
    speakers: Int[np.ndarray, " M"],
    *,
    batch_size: int,
) -> tuple[Int16[np.ndarray, "M T"], float]:
    """Synthesise in batches; return the audio, and the speed in samples per second.

    The speed excludes the first batch, which includes the compilation; it is NaN if
    there is only one batch.
    """
    count, size = len(codes), min(batch_size, len(codes))
    starts = range(0, count, size)
    audio, seconds = [], []
    with rows_to_draw(len(starts), 1) as (_, finish_batch):
        keys = jax.random.split(key, len(starts))
        for key, first in zip(keys, starts, strict=True):
            # The last batch repeats utterances, so that all batches have one size.
            rows = (first + np.arange(size)) % count
            start = time.perf_counter()
            audio.append(synthesise(key, codes[rows], lengths[rows], speakers[rows]))
            seconds.append((time.perf_counter() - start) / audio[-1].size)
            finish_batch()
    speed = 1 / np.median(seconds[1:]) if seconds[1:] else np.nan
    return np.concatenate(audio)[:count], float(speed)


def _write_sounds(context: Context, arrays: dict[str, np.ndarray]) -> None:
    workdir, _, dataset = context
    rate, names = dataset.sample_rate, dataset.speaker_names
    originals = read_many(dataset.test, arrays["index"].tolist())

    def write(name: str, audio: np.ndarray) -> None:
        workdir.write_bytes(workdir.pictures / f"{name}.wav", wav(audio, rate=rate))

    for number, utterance in enumerate(originals):
        audio = utterance["audio"]
        write(f"{number:04d}_original", audio)
        for decoded, voice in zip(
            arrays["audio"][number], arrays["voices"][number], strict=True
        ):
            kind = "as_itself" if voice == arrays["speakers"][number] else "converted"
            name = file_name(names, int(voice))
            write(f"{number:04d}_{kind}_{name}", decoded[: len(audio)])
    for number, audio in enumerate(arrays.get("drawn_audio", ())):
        name = file_name(names, int(arrays["drawn_voices"][number]))
        write(f"{number:04d}_drawn_{name}", audio)


# The model of speech evaluates and reports it together with itself.
SEQUENCE_PRIOR = SecondStage(sample=sample_speech, examples=windows)
