"""Audio for the report: WAV files and spectrograms."""

import io
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int16

from vqvae_jax.report import figures
from vqvae_jax.runtime.errors import require
from vqvae_jax.runtime.extras import imported

_FULL_SCALE = 2**15
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


def wav(audio: Int16[np.ndarray, " T"], *, rate: int) -> bytes:
    """Return 16-bit samples as the bytes of a WAV file, unchanged.

    Raises:
      UserError: if soundfile is not installed.
    """
    soundfile = imported("soundfile", purpose="to write recordings")
    buffer = io.BytesIO()
    soundfile.write(buffer, audio, rate, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


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
            figures.plain(_cut(title)), fontsize=8, color=figures.INK, loc="left"
        )
        axes.locator_params(axis="y", nbins=5)
        axes.set_ylabel("kHz", fontsize=8, color=figures.INK)
    rows[-1].set_xlim(0, max(seconds))
    rows[-1].set_xlabel("seconds", fontsize=8, color=figures.INK)
    bar = figure.colorbar(image, ax=list(rows), pad=0.01, aspect=12 * len(rows))
    bar.set_label("dB", fontsize=8, color=figures.INK)
    bar.ax.tick_params(colors=figures.INK, labelsize=8)
    bar.outline.set_visible(False)
    return figure


def _cut(title: str) -> str:
    return title if len(title) <= _TITLE else f"{title[: _TITLE - 1]}…"


def _decibels(
    clip: Int16[np.ndarray, " _"], window: int
) -> Float[np.ndarray, "frequencies times"]:
    """Return the short-time spectrum in dB of windows centred from the first sample."""
    samples = np.pad(clip / _FULL_SCALE, window // 2)
    frames = np.lib.stride_tricks.sliding_window_view(samples, window)[:: window // 4]
    taper = np.hanning(window)
    # Half of a sine's amplitude is at the negative frequency, which rfft omits.
    amplitudes = 2 * np.abs(np.fft.rfft(frames * taper)).T / taper.sum()
    return 20 * np.log10(np.maximum(amplitudes, _SILENCE))
