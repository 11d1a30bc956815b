"""The page of a model of speech: what was said, by whom, and what codes mean."""

from collections.abc import Mapping

import numpy as np

from vqvae_jax.data.source import read_many
from vqvae_jax.experiment import Experiment
from vqvae_jax.report import figures
from vqvae_jax.report.build import NAMES, learning_curves
from vqvae_jax.report.codebook import codebook_section
from vqvae_jax.report.page import (
    Picture,
    Section,
    Sound,
    render,
)
from vqvae_jax.report.paper import paper_section
from vqvae_jax.runtime import npz_schemas
from vqvae_jax.runtime.safe_io import read_arrays
from vqvae_jax.tasks.speech import sound
from vqvae_jax.tasks.speech.dataset import SpeechDataset
from vqvae_jax.training.run_name import run_name
from vqvae_jax.workdir import Workdir, restore

# A minute of speech on the page is two megabytes; `samples/` has all of it.
_SHOWN = 4
_DRAWN = 6


def build_speech(
    workdir: Workdir, experiment: Experiment, dataset: SpeechDataset
) -> str:
    """Return the report as one HTML page.

    Raises:
      UserError: an earlier stage has not left its results.
    """
    samples = workdir.read_samples(npz_schemas.CONVERSIONS)
    config, results = workdir.read_json(workdir.config), workdir.read_results()
    model, params = restore(workdir.path)
    sections = [
        *paper_section(config, results),
        _codes_matter(results),
        *([_voices(results)] if "speaker_chance_accuracy" in results else []),
        *_utterances(samples, dataset),
        *([_drawn(samples, dataset)] if "drawn_audio" in samples else []),
        *([_phonemes(workdir)] if workdir.phones.exists() else []),
        codebook_section(workdir, params),
        *learning_curves(workdir),
    ]
    return render(
        f"{NAMES[experiment.kind]}: {run_name(workdir.path)}",
        results=results,
        sections=sections,
        config=config,
        summary=f"Speech of {len(dataset.speaker_names)} speakers; a code of "
        f"K = {model.num_codes} for {model.downsampling} samples at "
        f"{dataset.sample_rate:,} Hz.",
        command=workdir.read_command(),
    )


def _codes_matter(results: Mapping[str, float]) -> Section:
    """Return the table of bits with the utterance's own codes and with others."""
    text = (
        "Bits per sample of the test utterances, given the speaker and these codes. "
        "Where all cost the same, the decoder ignores its codes."
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
    return Section("Does the decoder listen to the codes?", text, [], (head, *rows))


def _voices(results: Mapping[str, float]) -> Section:
    """Return the table of whom a classifier of real speech hears."""
    text = (
        "A logistic regression on the cepstra of real utterances of train names the "
        "speaker: as they are, and all in white noise as loud as they are, in which "
        "the noise that a decoder adds tells nothing."
    )
    rows = [
        (name, *(f"{results[key]:.1%}" for key in keys))
        for name, keys in (
            ("real utterances", _twice("real")),
            ("decoded in their own voice", _twice("same_voice")),
            ("converted, the target", _twice("converted")),
            ("chance", ("speaker_chance_accuracy",) * 2),
        )
        if results.keys() >= set(keys)
    ]
    head = ("", "named", "named in noise")
    return Section("Whose voice is it?", text, [], (head, *rows))


def _twice(name: str) -> tuple[str, str]:
    return f"{name}_speaker_accuracy", f"{name}_speaker_accuracy_in_noise"


def _utterances(
    samples: dict[str, np.ndarray], dataset: SpeechDataset
) -> list[Section]:
    """Return a section for each of some test utterances, and of what became of it."""
    names, rate = dataset.speaker_names, dataset.sample_rate
    originals = read_many(dataset.test, samples["index"][:_SHOWN].tolist())
    sections = []
    for number, utterance in enumerate(originals):
        original, speaker = utterance["audio"], int(utterance["speaker"])
        by = f"by {names[speaker]}" if speaker >= 0 else "by a speaker unknown to train"
        clips, titles = [original], [f"Original, {by}"]
        for said, voice in zip(
            samples["audio"][number], samples["voices"][number].tolist(), strict=True
        ):
            clips.append(said[: len(original)])
            titles.append(
                "Decoded, same speaker"
                if voice == speaker
                else f"Converted to {names[voice]}"
            )
        text = (
            "Drawn from the decoder given the codes, sample after sample."
            if number == 0
            else ""
        )
        heading, alt = f"Test utterance {number + 1}", "; ".join(titles)
        sections.append(_heard(heading, text, clips, titles, alt=alt, rate=rate))
    return sections


def _drawn(samples: dict[str, np.ndarray], dataset: SpeechDataset) -> Section:
    names = dataset.speaker_names
    return _heard(
        "Speech from nothing",
        "Codes drawn from the prior, said by the decoder.",
        list(samples["drawn_audio"][:_DRAWN]),
        [f"As {names[v]}" for v in samples["drawn_voices"][:_DRAWN].tolist()],
        alt="drawn speech",
        rate=dataset.sample_rate,
    )


def _heard(
    heading: str,
    text: str,
    clips: list[np.ndarray],
    titles: list[str],
    *,
    alt: str,
    rate: int,
) -> Section:
    """Return a section of clips to be played and seen."""
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
    said = counts.sum(axis=1) > 0
    kept = [name for name, is_said in zip(names, said, strict=True) if is_said]
    picture = Picture(
        figures.svg(figures.confusion(counts[said][:, said], kept)),
        "Confusion of phonemes: a row a true one, a column what its codes mean",
    )
    text = (
        "Each code stands for the phoneme that it occurs with most often in train. A "
        "row is a phoneme of test; its cells are what its codes were taken for."
    )
    return Section("Phonemes from codes", text, [picture])
