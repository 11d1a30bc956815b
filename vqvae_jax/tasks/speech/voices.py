"""Who speaks, and how far what is heard is from what was to be said.

Both look at mel cepstra: the smooth shape of a short piece's spectrum, on a scale of
pitch that follows the ear. A classifier of their statistics names the speaker of an
utterance, and their distance after time warping compares two that say the same.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence

import numpy as np
import scipy.fft
from jaxtyping import Float, Int, Int16
from scipy.spatial.distance import cdist
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from vqvae_jax.runtime.errors import require
from vqvae_jax.tasks.speech.audio import to_int16
from vqvae_jax.tasks.speech.utterances import UNKNOWN

# Utterances have lengths of their own.
Audio = Int16[np.ndarray, " _"]

_WINDOW_SECONDS, _HOP_SECONDS = 0.025, 0.01
_BANDS = 40
_CEPSTRA = 25
_FULL_SCALE = 2**15
# Draws of noise over each utterance that a classifier in noise is fitted to.
_NOISES = 4
# The power of rounding to 16 bits: silence has it too, so that its logarithm exists.
_ROUNDING = 1 / (12 * _FULL_SCALE**2)


def features(audio: Audio, *, rate: int) -> Float[np.ndarray, "N C"]:
    """Return the mel cepstra of windows of 25 ms, one every 10 ms.

    c_0 is the loudness, and the natural logarithm of the spectrum's magnitude on a mel
    scale is sum_d c_d cos(pi d x) over x from 0 to 1. The end is padded with silence to
    a whole window, so that there is at least one and no sample is left out.

    Args:
      audio: of any length.
      rate: its samples a second.
    """
    window, hop = round(rate * _WINDOW_SECONDS), round(rate * _HOP_SECONDS)
    steps = max(0, -(-(len(audio) - window) // hop))
    padded = np.zeros(steps * hop + window)
    padded[: len(audio)] = audio / _FULL_SCALE
    pieces = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop]
    shape = np.hamming(window)
    power = np.abs(scipy.fft.rfft(pieces * shape)) ** 2 / np.sum(shape**2)
    bands = power @ _mel_bands(window, rate).T
    cepstra = scipy.fft.dct(np.log(bands + _ROUNDING) / 2, axis=1) / _BANDS
    cepstra[:, 0] /= 2
    return cepstra[:, :_CEPSTRA]


@dataclasses.dataclass(frozen=True)
class SpeakerClassifier:
    """Names the speakers of utterances; `fit_speakers` makes it."""

    pipeline: Pipeline
    rate: int
    in_noise: bool

    def predict(self, utterances: Iterable[Audio]) -> Int[np.ndarray, " n"]:
        """Return the speaker of each utterance, one of those it was fitted to."""
        if self.in_noise:
            utterances = _in_noise(utterances, seed=_NOISES)
        return self.pipeline.predict(_statistics(utterances, self.rate))

    def accuracy(self, utterances: Iterable[Audio], speakers: Sequence[int]) -> float:
        """Return the part of utterances whose speaker is named right.

        Those of a speaker who is `UNKNOWN` are left out.

        Raises:
          UserError: no speaker is known.
        """
        heard, names = _of_known(utterances, speakers)
        require(len(heard) > 0, "no utterance to name the speaker of has a known one")
        return float(np.mean(self.predict(heard) == names))


def fit_speakers(
    utterances: Iterable[Audio],
    speakers: Sequence[int],
    *,
    rate: int,
    in_noise: bool = False,
) -> SpeakerClassifier:
    """Learn voices: a logistic regression on the mean and spread of cepstra.

    Loudness is left out, it is not the voice's. The microphone's sound is in the mean
    as the voice's is: speakers who were not recorded alike are told by it too.

    Args:
      utterances: to learn from.
      speakers: who speaks in each; those of an `UNKNOWN` one are left out.
      rate: of their samples.
      in_noise: hear these and all others in white noise as loud as they are. A decoder
        adds noise that no recording has; who has only heard recordings takes it for a
        trait of a voice, and gives all that is decoded to one speaker.

    Raises:
      UserError: there are fewer than two speakers.
    """
    heard, names = _of_known(utterances, speakers)
    found = len(np.unique(names))
    require(
        found >= 2,
        f"to tell speakers apart there must be two of them, there is {found}",
    )
    if in_noise:
        heard = [a for seed in range(_NOISES) for a in _in_noise(heard, seed=seed)]
        names = np.tile(names, _NOISES)
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    pipeline.fit(_statistics(heard, rate), names)
    return SpeakerClassifier(pipeline, rate, in_noise)


def mel_cepstral_distortion_db(a: Audio, b: Audio, *, rate: int) -> float:
    """Return how far one utterance's sound is from another's that says the same.

    10 / ln 10 sqrt(2 sum_{d >= 1} (c_d - c'_d)^2) (Kubichek, Mel-Cepstral Distance
    Measure for Objective Speech Quality Assessment, 1993), the mean over the path of
    dynamic time warping. Loudness, c_0, is left out; silence is not trimmed.

    Args:
      a: one.
      b: the other; of any length.
      rate: samples a second of both.
    """
    # The formula wants cepstra of the natural logarithm of the magnitude, scaled as
    # `features` has them: so it is the RMS difference of two smooth spectra in dB.
    # Cepstra of decibels, or of an orthonormal transform, would be some times as far.
    c, other = (features(audio, rate=rate)[:, 1:] for audio in (a, b))
    return warped_mean(10 / math.log(10) * math.sqrt(2) * cdist(c, other))


def warped_mean(distances: Float[np.ndarray, "N M"]) -> float:
    """Return the mean distance on the path of dynamic time warping (Sakoe, Chiba 1978).

    The path leads from the first pair of frames to the last, goes on in one sequence or
    in both at each step, and has the least sum; of several such it is the shortest.
    """
    n, m = distances.shape
    # Diagonal by diagonal: the pairs (i, k - i) depend on no other of the same k. Row 0
    # is the sum and row 1 the length of the path to (i, k - i), in column i + 1.
    before, last = np.full((2, 2, n + 1), np.inf)
    before[:, 0] = 0
    for k in range(n + m - 1):
        i = np.arange(max(0, k - m + 1), min(n, k + 1))
        sums, lengths = np.stack([before[:, i], last[:, i], last[:, i + 1]], axis=1)
        least = sums.min(axis=0)
        shortest = np.where(sums == least, lengths, np.inf).min(axis=0)
        before, last = last, np.full_like(last, np.inf)
        last[:, i + 1] = least + distances[i, k - i], shortest + 1
    total, length = last[:, n]
    return float(total / length)


def _mel_bands(window: int, rate: int) -> Float[np.ndarray, "B F"]:
    """Return the weights of overlapping triangles, as wide as each other in mel."""
    mel = 2595 * np.log10(1 + scipy.fft.rfftfreq(window, 1 / rate) / 700)
    step = mel[-1] / (_BANDS + 1)
    middles = step * np.arange(1, _BANDS + 1)[:, None]
    weights = np.maximum(0, 1 - np.abs(mel - middles) / step)
    return weights / weights.sum(axis=1, keepdims=True)


def _in_noise(utterances: Iterable[Audio], *, seed: int) -> Iterable[Audio]:
    """Yield utterances in white noise of their own power, both half as loud."""
    rng = np.random.default_rng(seed)
    for audio in utterances:
        samples = audio / _FULL_SCALE
        loudness = math.sqrt(np.mean(samples**2)) if len(samples) else 0.0
        yield to_int16((samples + loudness * rng.standard_normal(len(samples))) / 2)


def _statistics(utterances: Iterable[Audio], rate: int) -> Float[np.ndarray, "n S"]:
    cepstra = (features(audio, rate=rate)[:, 1:] for audio in utterances)
    return np.stack([np.concatenate([c.mean(axis=0), c.std(axis=0)]) for c in cepstra])


def _of_known(
    utterances: Iterable[Audio], speakers: Sequence[int]
) -> tuple[list[Audio], Int[np.ndarray, " n"]]:
    pairs = zip(utterances, speakers, strict=True)
    known = [(audio, name) for audio, name in pairs if name != UNKNOWN]
    return [audio for audio, _ in known], np.array([name for _, name in known], int)
