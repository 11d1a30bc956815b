"""The report on a model of speech: utterances, voices and phonemes."""

from collections.abc import Mapping

import numpy as np

from vqvae_jax.data.source import read_many
from vqvae_jax.experiment import Experiment
from vqvae_jax.report import figures
from vqvae_jax.report.build import learning_curves
from vqvae_jax.report.codebook import codebook_sections
from vqvae_jax.report.page import (
    Picture,
    Section,
    Sound,
    render,
)
from vqvae_jax.report.paper import paper_section
from vqvae_jax.runtime.safe_io import read_arrays
from vqvae_jax.tasks.speech import sound
from vqvae_jax.tasks.speech.conversion import CONVERSIONS
from vqvae_jax.tasks.speech.dataset import SpeechDataset
from vqvae_jax.training.logging import run_name
from vqvae_jax.workdir import Workdir

# A minute of audio takes two megabytes of the page; all of it is in `samples/`.
_SHOWN = 4
_DRAWN = 6


def build_speech_page(
    workdir: Workdir, experiment: Experiment, dataset: SpeechDataset
) -> str:
    """Return the report as one HTML page.

    Raises:
      UserError: results of an earlier stage are missing.
    """
    samples = workdir.read_samples(CONVERSIONS)
    config, results = workdir.read_config(), workdir.read_results()
    model, params = workdir.restore()
    sections = [
        *paper_section(config, results),
        _code_use(results),
        *([_voices(results)] if "speaker_chance_accuracy" in results else []),
        *_utterances(samples, dataset),
        *([_samples(samples, dataset)] if "drawn_audio" in samples else []),
        *([_phonemes(workdir)] if workdir.phones.exists() else []),
        *codebook_sections(workdir, model, params),
        *learning_curves(workdir),
    ]
    return render(
        f"{experiment.spec.title}: {run_name(workdir.path)}",
        results=results,
        sections=sections,
        config=config,
        summary=f"Speech of {len(dataset.speaker_names)} speakers; a code of "
        f"K = {model.num_codes} for {model.downsampling} samples at "
        f"{dataset.sample_rate:,} Hz.",
        command=workdir.read_command(),
    )


def _code_use(results: Mapping[str, float]) -> Section:
    """Return the table of bits given an utterance's own codes and other codes."""
    text = (
        "Bits per sample of the test utterances given the speaker and these codes. "
        "Equal costs mean that the decoder ignores its codes."
    )
    rows = [
        (name, f"{results[f'test_bits_per_sample{codes}']:.3f}")
        for name, codes in (
            ("its own codes", ""),
            ("its own, moved by half of the utterance", "_codes_moved"),
            ("its own, in a random order", "_codes_shuffled"),
            ("those of another utterance", "_other_codes"),
        )
    ]
    head = ("", "bits per sample")
    return Section("Does the decoder use the codes?", text, [], (head, *rows))


def _voices(results: Mapping[str, float]) -> Section:
    """Return the table of a speaker classifier's accuracies."""
    text = (
        "The accuracy of a logistic regression on the cepstra of real train "
        "utterances. It is trained and tested on clean audio, and on audio in white "
        "noise of equal power, which masks the decoder's own noise."
    )
    rows = [
        (name, *(f"{results[key]:.1%}" for key in keys))
        for name, keys in (
            ("real utterances", _accuracy_keys("real")),
            ("decoded in their own voice", _accuracy_keys("same_voice")),
            ("converted, target speaker", _accuracy_keys("converted")),
            ("chance", ("speaker_chance_accuracy",) * 2),
        )
        if results.keys() >= set(keys)
    ]
    head = ("", "accuracy", "accuracy in noise")
    return Section("Speaker identity", text, [], (head, *rows))


def _accuracy_keys(name: str) -> tuple[str, str]:
    return f"{name}_speaker_accuracy", f"{name}_speaker_accuracy_in_noise"


def _utterances(
    samples: dict[str, np.ndarray], dataset: SpeechDataset
) -> list[Section]:
    """Return a section for each of the first utterances, with its syntheses."""
    names, rate = dataset.speaker_names, dataset.sample_rate
    originals = read_many(dataset.test, samples["index"][:_SHOWN].tolist())
    sections = []
    for number, utterance in enumerate(originals):
        original, speaker = utterance["audio"], int(utterance["speaker"])
        by = f"by {names[speaker]}" if speaker >= 0 else "by a speaker unknown to train"
        clips, titles = [original], [f"Original, {by}"]
        for decoded, voice in zip(
            samples["audio"][number], samples["voices"][number].tolist(), strict=True
        ):
            clips.append(decoded[: len(original)])
            titles.append(
                "Decoded, same speaker"
                if voice == speaker
                else f"Converted to {names[voice]}"
            )
        text = (
            "Drawn from the decoder given the codes, sample by sample."
            if number == 0
            else ""
        )
        heading, alt = f"Test utterance {number + 1}", "; ".join(titles)
        sections.append(
            _audio_section(heading, text, clips, titles, alt=alt, rate=rate)
        )
    return sections


def _samples(samples: dict[str, np.ndarray], dataset: SpeechDataset) -> Section:
    names = dataset.speaker_names
    return _audio_section(
        "Unconditional samples",
        "Codes drawn from the prior, decoded to audio.",
        list(samples["drawn_audio"][:_DRAWN]),
        [f"As {names[v]}" for v in samples["drawn_voices"][:_DRAWN].tolist()],
        alt="drawn speech",
        rate=dataset.sample_rate,
    )


def _audio_section(
    heading: str,
    text: str,
    clips: list[np.ndarray],
    titles: list[str],
    *,
    alt: str,
    rate: int,
) -> Section:
    """Return a section of spectrograms and audio players."""
    picture = Picture(
        figures.svg(sound.spectrograms(clips, titles, rate=rate)),
        f"Spectrograms: {alt}",
    )
    players = [
        Sound(sound.wav(clip, rate=rate), title, title)
        for clip, title in zip(clips, titles, strict=True)
    ]
    return Section(heading, text, [picture], sounds=players)


def _phonemes(workdir: Workdir) -> Section:
    arrays = read_arrays(workdir.phones, {"confusion": "i P P", "phone_names": "U P"})
    counts, names = arrays["confusion"], arrays["phone_names"].tolist()
    occurs = counts.sum(axis=1) > 0
    kept = [name for name, is_kept in zip(names, occurs, strict=True) if is_kept]
    picture = Picture(
        figures.svg(figures.confusion(counts[occurs][:, occurs], kept)),
        "Confusion matrix of phonemes: a row per true phoneme, a column per prediction",
    )
    text = (
        "Each code predicts the phoneme that it occurs with most often in train. A row "
        "is a phoneme of test; its cells are the predictions of its codes."
    )
    return Section("Phonemes from codes", text, [picture])
