"""Evaluation of speech and of its codes (section 4.3).

Codes replaced by others measure how much the decoder depends on them. Converted speech
is measured by the target's voice and the preserved content.
"""

import collections
import functools
import math
import warnings
from collections.abc import Callable, Iterator, Mapping

import jax
import numpy as np
from jaxtyping import Bool, Int

from vqvae_jax import metrics as metrics_lib
from vqvae_jax.data.batches import eval_batches
from vqvae_jax.data.source import Batch, Example, Source, read_many
from vqvae_jax.experiment import Experiment
from vqvae_jax.pipeline.evaluate import (
    Results,
    evaluate_prior_bits,
    sampling_speed,
    training_results,
)
from vqvae_jax.pipeline.run import Context
from vqvae_jax.runtime import distributed
from vqvae_jax.tasks.speech import phones, voices
from vqvae_jax.tasks.speech.dataset import SpeechDataset
from vqvae_jax.tasks.speech.model import SpeechVQVAE
from vqvae_jax.tasks.speech.utterances import (
    UNKNOWN,
    Utterances,
    WindowsSource,
    utterance_batches,
)
from vqvae_jax.training import sharding
from vqvae_jax.training.loop import make_evaluation
from vqvae_jax.workdir import SPLITS, Workdir

# The arrays of `samples.npz`.
CONVERSIONS = {
    "index": "i M",
    "speakers": "i M",
    "codes": "i M N",
    "code_lengths": "i M",
    "voices": "i M 2",
    "audio": "i M 2 T",
}
# Utterances per speaker for fitting and for testing the speaker classifier.
_NUM_FIT, _NUM_TEST = 20, 5
_LABELS = ("index", "speaker", "sentence")


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


def evaluate_speech(context: Context) -> tuple[Results, dict[str, np.ndarray]]:
    """Evaluate a trained model of speech, and its prior, on the test split.

    Returns a flat dict, with units in the names. The confusion matrix of phones is
    written to the workdir if phones of train and test are known.

    Raises:
      UserError: the codes or the prior belong to another model, or a stage is missing.
    """
    workdir, experiment, dataset = context
    model, params = workdir.restore()
    workdir.require_same_codebook(model, params)
    params = sharding.put_replicated(params, sharding.data_mesh())
    evaluation = make_evaluation(model.evaluate, sharding.data_mesh())
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
    results |= training_results(workdir, experiment, counted="crops")
    if confusion is not None:
        workdir.write_arrays(
            workdir.phones,
            confusion=confusion,
            phone_names=np.array(dataset.phone_names, dtype=str),
        )
    return results, {}


def _phoneme_results(
    workdir: Workdir,
    experiment: Experiment,
    dataset: SpeechDataset,
    model: SpeechVQVAE,
) -> tuple[Results, Int[np.ndarray, "P P"] | None]:
    if not dataset.phone_names:
        return {}, None
    try:
        scores = phones.score(
            _frames(workdir, dataset, "train", model.downsampling),
            _frames(workdir, dataset, "test", model.downsampling),
            num_codes=model.num_codes,
            num_phones=len(dataset.phone_names),
            silence=phones.silences(dataset.phone_names),
            seed=experiment.seed,
        )
    except phones.UnknownPhones as unknown:
        # Only some recordings have tables of phones.
        warnings.warn(f"phonemes are not measured: {unknown}", stacklevel=2)
        return {}, None
    results: Results = {
        "phoneme_accuracy": scores.all.accuracy,
        "phoneme_chance_accuracy": scores.all.chance,
        "phoneme_shuffled_codes_accuracy": scores.shuffled,
        "phoneme_frames": scores.all.frames,
    }
    if scores.spoken is not None:
        results |= {
            "phoneme_accuracy_without_silence": scores.spoken.accuracy,
            "phoneme_chance_accuracy_without_silence": scores.spoken.chance,
            "phoneme_frames_without_silence": scores.spoken.frames,
        }
    return results, scores.confusion


def _rates(model: SpeechVQVAE, dataset: SpeechDataset) -> Results:
    """Return the bits of a second of audio and of its codes."""
    audio = 16 * dataset.sample_rate
    codes = dataset.sample_rate / model.downsampling * model.quantizer.bits
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
    return evaluate_prior_bits(prior, params, sources, workdir, experiment).results


def _frames(
    workdir: Workdir, dataset: SpeechDataset, split: str, frame: int
) -> Iterator[phones.Frames]:
    """Yield the codes of each utterance, and the phone at the middle of each code."""
    codes, utterances = workdir.codes(split), getattr(dataset, split)
    for number in range(len(codes)):
        coded = codes[number]
        length = int(coded["length"])
        segments = utterances[int(coded["index"])]["phones"]
        yield phones.Frames(
            coded["codes"][:length, 0],
            phones.on_frames(segments, num_frames=length, frame=frame),
        )


def shuffle_in_time(
    codes: Int[np.ndarray, "B N"],
    lengths: Int[np.ndarray, " B"],
    generator: np.random.Generator,
) -> Int[np.ndarray, "B N"]:
    """Randomly permute the codes of each utterance, leaving padding in position."""
    shuffled = codes.copy()
    for row, length in zip(shuffled, lengths, strict=True):
        generator.shuffle(row[:length])
    return shuffled


def codes_of_another_utterance(
    codes: Int[np.ndarray, "B N"],
    lengths: Int[np.ndarray, " B"],
    *,
    before: Int[np.ndarray, " n"] | None = None,
) -> Int[np.ndarray, "B N"] | None:
    """Replace the codes of each utterance by those of the next utterance in the batch.

    Codes are repeated or cut to the length of the utterance they replace. Rows of
    length 0 are padding and are ignored. If the batch has a single utterance, use
    `before`, the codes of an earlier utterance; return None if there are none.
    """
    rows = np.flatnonzero(lengths).tolist()
    if len(rows) == 1 and before is None:
        return None
    return _replace_codes(
        codes,
        lengths,
        {
            row: before if row == other else codes[other, : lengths[other]]
            for row, other in zip(rows, rows[1:] + rows[:1], strict=True)
        },
    )


def codes_of_another_sentence(
    codes: Int[np.ndarray, "B N"],
    lengths: Int[np.ndarray, " B"],
    sentences: Int[np.ndarray, " B"],
) -> tuple[Int[np.ndarray, "B N"], Bool[np.ndarray, " B"]]:
    """Replace the codes of each utterance by those of the next different sentence.

    Unknown sentences count as different. Also return whether such an utterance exists;
    if not, the codes are unchanged.
    """
    replacements = {}
    for row in range(len(codes)):
        others = np.roll(np.arange(len(codes)), -1 - row)[:-1]
        differs = (sentences[others] != sentences[row]) | (sentences[row] == UNKNOWN)
        for other in others[differs][:1]:
            replacements[row] = codes[other, : lengths[other]]
    replaced = np.isin(np.arange(len(codes)), [*replacements])
    return _replace_codes(codes, lengths, replacements), replaced


def fraction_of_equal_codes(
    codes: Int[np.ndarray, "B N"],
    others: Int[np.ndarray, "B N"],
    lengths: Int[np.ndarray, " B"],
) -> float:
    """Return the fraction of equal codes within the lengths."""
    mask = np.arange(codes.shape[1]) < lengths[:, None]
    return float((codes == others)[mask].mean())


def _replace_codes(
    codes: Int[np.ndarray, "B N"],
    lengths: Int[np.ndarray, " B"],
    replacements: Mapping[int, Int[np.ndarray, " n"]],
) -> Int[np.ndarray, "B N"]:
    """Replace the codes of rows, repeating or cutting the new ones to length."""
    replaced = codes.copy()
    for row, others in replacements.items():
        replaced[row, : lengths[row]] = np.resize(others, lengths[row])
    return replaced


def evaluate_conversions(
    workdir: Workdir, model: SpeechVQVAE, params, dataset: SpeechDataset
) -> dict[str, float]:
    """Measure the voice and the content of converted speech.

    A classifier of real speech predicts the speaker, both of clean speech and of speech
    in noise as loud as it.

    Content is preserved if encoding the converted speech gives the codes it was decoded
    from (compare with the codes of another utterance, as chance), and if the converted
    speech is near, after time warping, to the target speaker's recording of the same
    sentence.
    """
    samples = workdir.read_samples(CONVERSIONS)
    test = read_many(dataset.test, samples["index"].tolist())
    same_voice, converted = (
        [
            audio[column, : len(utterance["audio"])]
            for audio, utterance in zip(samples["audio"], test, strict=True)
        ]
        for column in (0, 1)
    )
    results = _speaker_accuracies(
        samples, same_voice, converted, dataset, workdir.codes
    )
    codes, lengths = samples["codes"], samples["code_lengths"]
    longest = codes.shape[1] * model.downsampling
    audio = np.zeros((len(converted), longest), np.int16)
    mask = np.zeros(audio.shape, bool)
    for row, clip in enumerate(converted):
        audio[row, : len(clip)], mask[row, : len(clip)] = clip, True
    encoded = np.asarray(jax.jit(model.encode)(params, audio, mask))
    results["converted_equal_codes"] = fraction_of_equal_codes(codes, encoded, lengths)
    sentences = np.array([int(utterance["sentence"]) for utterance in test])
    others, replaced = codes_of_another_sentence(codes, lengths, sentences)
    if replaced.any():
        results["other_utterance_equal_codes"] = fraction_of_equal_codes(
            codes[replaced], others[replaced], lengths[replaced]
        )
    targets = samples["voices"][:, 1]
    return results | _distortions(
        test, converted, targets, dataset, workdir.codes("test")
    )


def _speaker_accuracies(
    samples: Mapping[str, np.ndarray],
    same_voice: list[np.ndarray],
    converted: list[np.ndarray],
    dataset: SpeechDataset,
    codes: Callable[[str], Source],
) -> dict[str, float]:
    if len(dataset.speaker_names) < 2:
        return {}
    train = _utterances_per_speaker(dataset.train, codes("train"), _NUM_FIT)
    # Unknown speakers are ignored: validation and test can have speakers not in train.
    real = _utterances_per_speaker(dataset.validation, codes("validation"), _NUM_TEST)
    targets = samples["voices"][:, 1].tolist()
    is_same = samples["voices"][:, 0] == samples["speakers"]
    reconstructed = (
        [audio for audio, kept in zip(same_voice, is_same, strict=True) if kept],
        samples["speakers"][is_same].tolist(),
    )
    results = {"speaker_chance_accuracy": 1 / len(dataset.speaker_names)}
    for in_noise, suffix in ((False, ""), (True, "_in_noise")):
        classifier = voices.fit_speakers(
            *train, rate=dataset.sample_rate, in_noise=in_noise
        )
        for name, clips, speakers in (
            ("real", *real),
            ("same_voice", *reconstructed),
            ("converted", converted, targets),
        ):
            if clips:
                accuracy = classifier.accuracy(clips, speakers)
                results[f"{name}_speaker_accuracy{suffix}"] = accuracy
    return results


def _distortions(
    test: list[Example],
    converted: list[np.ndarray],
    targets: Int[np.ndarray, " M"],
    dataset: SpeechDataset,
    codes: Source,
) -> dict[str, float]:
    """Return mel-cepstral distortions between converted speech and target speaker."""
    rate = dataset.sample_rate
    recordings = _sentences_of_speakers(codes)
    distances: dict[str, list[float]] = {
        "converted_to_target_mcd_db": [],
        "source_to_target_mcd_db": [],
        "converted_to_target_other_sentence_mcd_db": [],
    }
    for source, audio, target in zip(test, converted, targets.tolist(), strict=True):
        sentence = int(source["sentence"])
        of_target = recordings.get(target, {})
        others = [index for other, index in of_target.items() if other != sentence]
        if sentence == UNKNOWN or sentence not in of_target or not others:
            continue
        same, other = (
            dataset.test[index]["audio"] for index in (of_target[sentence], others[0])
        )
        for name, (a, b) in zip(
            distances,
            ((audio, same), (source["audio"], same), (audio, other)),
            strict=True,
        ):
            distances[name].append(voices.mel_cepstral_distortion_db(a, b, rate=rate))
    return {k: float(np.mean(values)) for k, values in distances.items() if values}


def _sentences_of_speakers(codes: Source) -> Mapping[int, dict[int, int]]:
    """Return a map speaker -> sentence -> index of the utterance."""
    recordings: dict[int, dict[int, int]] = {}
    for labels in _labels(codes):
        sentences = recordings.setdefault(labels["speaker"], {})
        sentences.setdefault(labels["sentence"], labels["index"])
    return recordings


def _utterances_per_speaker(
    source: Utterances, codes: Source, most: int
) -> tuple[list[np.ndarray], list[int]]:
    """Return audio and speakers of up to `most` utterances of each known speaker."""
    clips, speakers, counts = [], [], {}
    for labels in _labels(codes):
        speaker = labels["speaker"]
        if speaker == UNKNOWN or counts.get(speaker, 0) >= most:
            continue
        counts[speaker] = counts.get(speaker, 0) + 1
        clips.append(source[labels["index"]]["audio"])
        speakers.append(speaker)
    return clips, speakers


def _labels(codes: Source) -> list[dict[str, int]]:
    """Return index, speaker and sentence of each utterance, in order of index.

    Read them from the codes, which avoids decoding the recordings of a whole corpus.
    """
    labels = [
        dict(zip(_LABELS, values, strict=True))
        for batch in eval_batches(codes, batch_size=256)
        for values in np.stack([batch[k][batch["mask"]] for k in _LABELS], 1).tolist()
    ]
    return sorted(labels, key=lambda utterance: utterance["index"])
