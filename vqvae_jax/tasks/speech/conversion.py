"""Whose voice converted speech has, and whether it says the same (section 4.3)."""

from collections.abc import Callable, Mapping

import jax
import numpy as np
from jaxtyping import Int

from vqvae_jax.data.batches import eval_batches
from vqvae_jax.data.source import Example, Source, read_many
from vqvae_jax.runtime import npz_schemas
from vqvae_jax.tasks.speech import voices
from vqvae_jax.tasks.speech.code_ablation import equal_codes, of_another_sentence
from vqvae_jax.tasks.speech.dataset import SpeechDataset
from vqvae_jax.tasks.speech.model import SpeechVQVAE
from vqvae_jax.tasks.speech.utterances import UNKNOWN, Utterances
from vqvae_jax.workdir import Workdir

# Utterances of each speaker that the classifier of speakers learns from, and that it is
# tried on.
_TO_LEARN, _TO_TRY = 20, 5
_FACTS = ("index", "speaker", "sentence")


def of_conversions(
    workdir: Workdir, model: SpeechVQVAE, params, dataset: SpeechDataset
) -> dict[str, float]:
    """Who speaks in what was decoded, by a classifier of real speech; and what is said.

    The classifier listens twice, to speech as it is and in noise as loud as it.

    What is said stays where the codes of the converted speech are those it was made of
    (others' codes tell what is chance), and where it is near, after warping, to how the
    target says the same sentence.
    """
    samples = workdir.read_samples(npz_schemas.CONVERSIONS)
    test = read_many(dataset.test, samples["index"].tolist())
    own, changed = (
        [
            audio[column, : len(utterance["audio"])]
            for audio, utterance in zip(samples["audio"], test, strict=True)
        ]
        for column in (0, 1)
    )
    results = _of_speakers(samples, own, changed, dataset, workdir.codes)
    codes, lengths = samples["codes"], samples["code_lengths"]
    longest = codes.shape[1] * model.downsampling
    audio = np.zeros((len(changed), longest), np.int16)
    mask = np.zeros(audio.shape, bool)
    for row, said in enumerate(changed):
        audio[row, : len(said)], mask[row, : len(said)] = said, True
    again = np.asarray(jax.jit(model.encode)(params, audio, mask))
    results["converted_equal_codes"] = equal_codes(codes, again, lengths)
    sentences = np.array([int(utterance["sentence"]) for utterance in test])
    others, there = of_another_sentence(codes, lengths, sentences)
    if there.any():
        results["other_utterance_equal_codes"] = equal_codes(
            codes[there], others[there], lengths[there]
        )
    targets = samples["voices"][:, 1]
    return results | _of_distances(
        test, changed, targets, dataset, workdir.codes("test")
    )


def _of_speakers(
    samples: Mapping[str, np.ndarray],
    own: list[np.ndarray],
    changed: list[np.ndarray],
    dataset: SpeechDataset,
    codes: Callable[[str], Source],
) -> dict[str, float]:
    if len(dataset.speaker_names) < 2:
        return {}
    to_learn = _of_each(dataset.train, codes("train"), _TO_LEARN)
    # Speakers of test may be new ones, and so may those of validation.
    real = _of_each(dataset.validation, codes("validation"), _TO_TRY)
    converted = samples["voices"][:, 1].tolist()
    is_own = samples["voices"][:, 0] == samples["speakers"]
    as_themselves = (
        [audio for audio, kept in zip(own, is_own, strict=True) if kept],
        samples["speakers"][is_own].tolist(),
    )
    results = {"speaker_chance_accuracy": 1 / len(dataset.speaker_names)}
    for in_noise, suffix in ((False, ""), (True, "_in_noise")):
        classifier = voices.fit_speakers(
            *to_learn, rate=dataset.sample_rate, in_noise=in_noise
        )
        for name, heard, speakers in (
            ("real", *real),
            ("same_voice", *as_themselves),
            ("converted", changed, converted),
        ):
            if heard:
                accuracy = classifier.accuracy(heard, speakers)
                results[f"{name}_speaker_accuracy{suffix}"] = accuracy
    return results


def _of_distances(
    test: list[Example],
    changed: list[np.ndarray],
    targets: Int[np.ndarray, " M"],
    dataset: SpeechDataset,
    codes: Source,
) -> dict[str, float]:
    """Mel-cepstral distortion between converted speech and the target's own."""
    rate = dataset.sample_rate
    said = _sentences_of_speakers(codes)
    distances: dict[str, list[float]] = {
        "converted_to_target_mcd_db": [],
        "source_to_target_mcd_db": [],
        "converted_to_target_other_sentence_mcd_db": [],
    }
    for source, audio, target in zip(test, changed, targets.tolist(), strict=True):
        sentence = int(source["sentence"])
        theirs = said.get(target, {})
        others = [row for other, row in theirs.items() if other != sentence]
        if sentence == UNKNOWN or sentence not in theirs or not others:
            continue
        same, other = (dataset.test[i]["audio"] for i in (theirs[sentence], others[0]))
        for name, (a, b) in zip(
            distances,
            ((audio, same), (source["audio"], same), (audio, other)),
            strict=True,
        ):
            distances[name].append(voices.mel_cepstral_distortion_db(a, b, rate=rate))
    return {k: float(np.mean(values)) for k, values in distances.items() if values}


def _sentences_of_speakers(codes: Source) -> Mapping[int, dict[int, int]]:
    """Return speaker -> sentence -> which utterance."""
    said: dict[int, dict[int, int]] = {}
    for facts in _facts(codes):
        sentences = said.setdefault(facts["speaker"], {})
        sentences.setdefault(facts["sentence"], facts["index"])
    return said


def _of_each(
    source: Utterances, codes: Source, most: int
) -> tuple[list[np.ndarray], list[int]]:
    """Return the sounds and speakers of up to `most` utterances of each speaker."""
    sounds, speakers, counts = [], [], {}
    for facts in _facts(codes):
        speaker = facts["speaker"]
        if speaker == UNKNOWN or counts.get(speaker, 0) >= most:
            continue
        counts[speaker] = counts.get(speaker, 0) + 1
        sounds.append(source[facts["index"]]["audio"])
        speakers.append(speaker)
    return sounds, speakers


def _facts(codes: Source) -> list[dict[str, int]]:
    """Return who says what, from first to last; it is kept with the codes.

    The recordings of a whole corpus would have to be decoded to tell.
    """
    facts = [
        dict(zip(_FACTS, values, strict=True))
        for batch in eval_batches(codes, batch_size=256)
        for values in np.stack([batch[k][batch["mask"]] for k in _FACTS], 1).tolist()
    ]
    return sorted(facts, key=lambda utterance: utterance["index"])
