"""The report on a model of speech: spectrograms, sounds, voices and phonemes."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int16

from vqvae_jax.data.source import read_many
from vqvae_jax.pipeline.run import Context
from vqvae_jax.report import figures
from vqvae_jax.report.build import learning_curves
from vqvae_jax.report.codebook import codebook_sections
from vqvae_jax.report.page import Picture, Section, Sound, render
from vqvae_jax.report.paper import paper_section
from vqvae_jax.runtime.errors import require
from vqvae_jax.runtime.safe_io import read_arrays
from vqvae_jax.tasks.speech.audio import FULL_SCALE, wav
from vqvae_jax.tasks.speech.dataset import SpeechDataset
from vqvae_jax.tasks.speech.evaluation import CONVERSIONS
from vqvae_jax.training.logging import run_name
from vqvae_jax.workdir import Workdir

# A minute of audio takes two megabytes of the page; all of it is in `samples/`.
_SHOWN = 4
_DRAWN = 6

# Long enough to resolve the harmonics of a voice, short enough for its syllables.
_WINDOW_SECONDS = 0.025
# Dynamic range of the colours, in dB below the peak.
_RANGE = 70
# Lower bound of the peak in dB, so that silence stays dark.
_LEAST_PEAK = -50
# Characters that fit above a spectrogram.
_TITLE = 56
# An amplitude below the resolution of 16 bits.
_SILENCE = 1e-6


def build_speech_page(context: Context) -> str:
    """Return the report as one HTML page.

    Raises:
      UserError: results of an earlier stage are missing.
    """
    workdir, experiment, dataset = context
    samples = workdir.read_samples(CONVERSIONS)
    config, results = workdir.read_config(), workdir.read_results()
    model, params = workdir.restore()
    sections = [
        *paper_section(config, results),
        _code_use(results),
        *([_voices(results)] if "speaker_chance_accuracy" in results else []),
        *_utterances(samples, dataset),
        *([_samples(samples, dataset)] if "drawn_audio" in samples else []),
        *([_phonemes(workdir, results)] if workdir.phones.exists() else []),
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
        figures.svg(spectrograms(clips, titles, rate=rate)),
        f"Spectrograms: {alt}",
    )
    players = [
        Sound(wav(clip, rate=rate), title, title)
        for clip, title in zip(clips, titles, strict=True)
    ]
    return Section(heading, text, [picture], sounds=players)


def _phonemes(workdir: Workdir, results: Mapping[str, float]) -> Section:
    """Return the accuracies with and without silence, and the confusion matrix."""
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
        "is a phoneme of test; its cells are the predictions of its codes. Chance is "
        "the accuracy of always predicting the most frequent phoneme of train."
    )
    rows = [
        (name, f"{results[keys[0]]:.1%}", f"{results[keys[1]]:.1%}")
        for name, keys in (
            ("all frames", _phoneme_keys("")),
            ("without silence", _phoneme_keys("_without_silence")),
        )
        if results.keys() >= set(keys)
    ]
    head = ("", "accuracy", "chance")
    return Section("Phonemes from codes", text, [picture], (head, *rows))


def _phoneme_keys(suffix: str) -> tuple[str, str]:
    return f"phoneme_accuracy{suffix}", f"phoneme_chance_accuracy{suffix}"


def spectrograms(
    clips: Sequence[Int16[np.ndarray, " _"]], titles: Sequence[str], *, rate: int
) -> figures.Figure:
    """Plot the spectrograms of clips below each other.

    All share the time axis and the colour scale in dB. A sine at full scale has 0 dB.

    Args:
      clips: samples, of any lengths.
      titles: one title per clip; long titles are truncated.
      rate: sample rate in Hz.

    Raises:
      UserError: if there are no clips.
    """
    require(len(clips) > 0, "spectrograms need at least one clip, got none")
    window = 2 ** round(np.log2(_WINDOW_SECONDS * rate))
    pictures = [_decibels(clip, window) for clip in clips]
    peak = max(_LEAST_PEAK, *(picture.max() for picture in pictures))
    # Give empty clips a width too.
    seconds = [max(window, len(clip)) / rate for clip in clips]
    # A wider figure would make the text too small to read on a phone.
    figure = figures.new_figure(5.0, 0.5 + 1.1 * len(clips))
    rows = figure.subplots(len(clips), sharex=True, squeeze=False)[:, 0]
    for axes, title, width, picture in zip(
        rows, titles, seconds, pictures, strict=True
    ):
        figures.style(axes)
        axes.grid(False)
        image = axes.imshow(
            picture,
            cmap="magma",
            vmin=peak - _RANGE,
            vmax=peak,
            origin="lower",
            aspect="auto",
            extent=(0, width, 0, rate / 2000),
        )
        axes.set_title(
            figures.plain(_cut(title)),
            fontsize=figures.TEXT,
            color=figures.INK,
            loc="left",
        )
        axes.locator_params(axis="y", nbins=5)
        axes.set_ylabel("kHz", fontsize=figures.TEXT, color=figures.INK)
    rows[-1].set_xlim(0, max(seconds))
    rows[-1].set_xlabel("seconds", fontsize=figures.TEXT, color=figures.INK)
    bar = figure.colorbar(image, ax=list(rows), pad=0.01, aspect=12 * len(rows))
    bar.set_label("dB", fontsize=figures.TEXT, color=figures.INK)
    bar.ax.tick_params(colors=figures.INK, labelsize=figures.TEXT)
    bar.outline.set_visible(False)
    return figure


def _cut(title: str) -> str:
    return title if len(title) <= _TITLE else f"{title[: _TITLE - 1]}…"


def _decibels(
    clip: Int16[np.ndarray, " _"], window: int
) -> Float[np.ndarray, "frequencies times"]:
    """Return the short-time spectrum in dB of windows centred from the first sample."""
    samples = np.pad(clip / FULL_SCALE, window // 2)
    frames = np.lib.stride_tricks.sliding_window_view(samples, window)[:: window // 4]
    taper = np.hanning(window)
    # Half of a sine's amplitude is at the negative frequency, which rfft omits.
    amplitudes = 2 * np.abs(np.fft.rfft(frames * taper)).T / taper.sum()
    return 20 * np.log10(np.maximum(amplitudes, _SILENCE))
