"""Let test utterances be said by their own and by other speakers, and keep them."""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Int, Int16

from vqvae_jax.data.source import (
    Example,
    Source,
    read_columns,
    read_many,
    stack,
)
from vqvae_jax.pipeline.samples import file_name, rows_to_draw
from vqvae_jax.pipeline.stage import Context
from vqvae_jax.report.build import spread
from vqvae_jax.tasks.speech.sound import wav
from vqvae_jax.tasks.speech.utterances import UNKNOWN
from vqvae_jax.training import sharding
from vqvae_jax.workdir import restore, restore_second

# Key, codes [B, N], how many of them count [B] and speakers [B] -> audio [B, T].
Say = Callable[[jax.Array, np.ndarray, np.ndarray, np.ndarray], np.ndarray]


class Chosen(NamedTuple):
    """Utterances of test to be said anew.

    rows: `[M]`, which of the split's codes.
    voices: `[M, 2]`, as whom: first as the speaker's own voice, where train knows it,
        then as another's.
    """

    rows: Int[np.ndarray, " M"]
    voices: Int[np.ndarray, "M 2"]


def sample_speech(context: Context) -> None:
    """Decode the codes of test utterances, and codes drawn from the prior, to sound.

    `samples.npz` has, for M utterances of the test split: `index` [M], `speakers` [M],
    `codes` [M, N], of which `code_lengths` [M] count; `voices` [M, 2], as whom each was
    decoded, and `audio` [M, 2, T]. Where a prior follows, `drawn_codes`, `drawn_voices`
    and `drawn_audio` are what it made of nothing. `samples/` has them as WAV.
    """
    workdir, experiment, dataset = context
    config = experiment.samples
    model, params = restore(workdir.path)
    workdir.require_same_codebook(params)
    params = sharding.put_replicated(params, sharding.data_mesh())
    options = config.without_labels

    @jax.jit
    def decode(params, key, codes, mask, speakers):
        return model.decode(params, key, codes, mask=mask, speakers=speakers, **options)

    say_key, prior_key, drawn_key = jax.random.split(
        jax.random.key(experiment.seed + 2), 3
    )

    def say(key, codes, lengths, speakers):
        mask = np.arange(codes.shape[1]) < lengths[:, None]
        return np.asarray(decode(params, key, codes, mask, speakers))

    chosen = choose_utterances(
        workdir.codes("test"), config.num_samples, num_speakers=model.num_speakers
    )
    test = stack(read_many(workdir.codes("test"), chosen.rows.tolist()))
    codes = test["codes"][:, : int(test["length"].max()), 0]
    audio, speed = say_all(
        say,
        say_key,
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
    if experiment.second is not None:
        prior, prior_params = restore_second(workdir.path, experiment.second)
        voices = np.arange(config.num_samples, dtype=np.int32) % model.num_speakers
        size = min(config.batch_size, len(voices))
        starts = range(0, len(voices), size)
        drawn = [
            prior.sample(
                prior_params,
                key,
                num_samples=size,
                # The last batch draws some again, so that all have one size.
                speakers=np.resize(voices[start:], size) if prior.conditional else None,
                **options,
            )
            for key, start in zip(
                jax.random.split(prior_key, len(starts)), starts, strict=True
            )
        ]
        arrays["drawn_codes"] = np.concatenate(drawn)[: len(voices)]
        arrays["drawn_voices"] = voices
        arrays["drawn_audio"], _ = say_all(
            say,
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
    """Choose up to n utterances, and as whom each is to be said.

    Where another speaker of train says the same sentence too, the utterance is chosen
    first and that speaker is the other voice: what becomes of it can be compared.
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
    rows = [pool[place] for place in spread(len(pool), n)]
    voices = np.zeros((len(rows), 2), np.int32)
    for place, row in enumerate(rows):
        own = speakers[row] if speakers[row] != UNKNOWN else place % num_speakers
        choices = others(row) if known[row] else []
        if not len(choices):
            choices = [s for s in range(num_speakers) if s != own] or [own]
        voices[place] = own, choices[place % len(choices)]
    return Chosen(np.array(rows), voices)


def say_all(
    say: Say,
    key: jax.Array,
    codes: Int[np.ndarray, "M N"],
    lengths: Int[np.ndarray, " M"],
    speakers: Int[np.ndarray, " M"],
    *,
    batch_size: int,
) -> tuple[Int16[np.ndarray, "M T"], float]:
    """Return what is said, and how many samples of sound a second were made.

    The speed leaves out the batch that compiles; NaN if there was no other.
    """
    count, size = len(codes), min(batch_size, len(codes))
    starts = range(0, count, size)
    said, seconds = [], []
    with rows_to_draw(len(starts), 1) as (_, finish_batch):
        keys = jax.random.split(key, len(starts))
        for key, first in zip(keys, starts, strict=True):
            # The last batch says some again, so that all have one size.
            rows = (first + np.arange(size)) % count
            start = time.perf_counter()
            said.append(say(key, codes[rows], lengths[rows], speakers[rows]))
            seconds.append((time.perf_counter() - start) / said[-1].size)
            finish_batch()
    speed = 1 / np.median(seconds[1:]) if seconds[1:] else np.nan
    return np.concatenate(said)[:count], float(speed)


def _write_sounds(context: Context, arrays: dict[str, np.ndarray]) -> None:
    workdir, _, dataset = context
    rate, names = dataset.sample_rate, dataset.speaker_names
    originals = read_many(dataset.test, arrays["index"].tolist())

    def write(name: str, audio: np.ndarray) -> None:
        workdir.write_bytes(workdir.pictures / f"{name}.wav", wav(audio, rate=rate))

    for number, utterance in enumerate(originals):
        audio = utterance["audio"]
        write(f"{number:04d}_original", audio)
        for said, voice in zip(
            arrays["audio"][number], arrays["voices"][number], strict=True
        ):
            kind = "as_itself" if voice == arrays["speakers"][number] else "converted"
            name = file_name(names, int(voice))
            write(f"{number:04d}_{kind}_{name}", said[: len(audio)])
    for number, audio in enumerate(arrays.get("drawn_audio", ())):
        name = file_name(names, int(arrays["drawn_voices"][number]))
        write(f"{number:04d}_drawn_{name}", audio)
