"""Evaluate speaker conversion: target voice and preserved content (section 4.3)."""

from collections.abc import Callable, Mapping

import jax
import numpy as np
from jaxtyping import Int

from vqvae_jax.data.batches import eval_batches
from vqvae_jax.data.source import Example, Source, read_many
from vqvae_jax.tasks.speech import voices
from vqvae_jax.tasks.speech.code_ablation import (
    codes_of_another_sentence,
    fraction_of_equal_codes,
)
from vqvae_jax.tasks.speech.dataset import SpeechDataset
from vqvae_jax.tasks.speech.model import SpeechVQVAE
from vqvae_jax.tasks.speech.utterances import UNKNOWN, Utterances
from vqvae_jax.workdir import Workdir

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
