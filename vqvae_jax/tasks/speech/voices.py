"""Classify speakers and measure mel-cepstral distortion between utterances.

Both use mel cepstra: the spectral envelope of a short window on a perceptual frequency
scale. A classifier of their statistics predicts the speaker of an utterance. Their
distance after time warping compares two utterances of the same sentence.
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
from vqvae_jax.tasks.speech.audio import FULL_SCALE, to_int16
from vqvae_jax.tasks.speech.utterances import UNKNOWN

# `_`: utterances differ in length.
Audio = Int16[np.ndarray, " _"]

_WINDOW_SECONDS, _HOP_SECONDS = 0.025, 0.01
_BANDS = 40
_CEPSTRA = 25
# Noise draws per utterance when fitting a classifier in noise.
_NOISES = 4
# Power of the rounding error at 16 bits; keeps the logarithm of silence finite.
_ROUNDING = 1 / (12 * FULL_SCALE**2)


def features(audio: Audio, *, rate: int) -> Float[np.ndarray, "N C"]:
    """Return the mel cepstra of 25 ms windows with a hop of 10 ms.

    c_0 is the loudness. sum_d c_d cos(pi d x), for x in [0, 1], is the natural
    logarithm of the magnitude spectrum on a mel scale. The end is padded with silence
    to a full window, so that there is at least one window and all samples are covered.

    Args:
      audio: samples, of any length.
      rate: sample rate in Hz.
    """
    window, hop = round(rate * _WINDOW_SECONDS), round(rate * _HOP_SECONDS)
    steps = max(0, -(-(len(audio) - window) // hop))
    padded = np.zeros(steps * hop + window)
    padded[: len(audio)] = audio / FULL_SCALE
    pieces = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop]
    shape = np.hamming(window)
    power = np.abs(scipy.fft.rfft(pieces * shape)) ** 2 / np.sum(shape**2)
    bands = power @ _mel_bands(window, rate).T
    cepstra = scipy.fft.dct(np.log(bands + _ROUNDING) / 2, axis=1) / _BANDS
    cepstra[:, 0] /= 2
    return cepstra[:, :_CEPSTRA]


@dataclasses.dataclass(frozen=True)
class SpeakerClassifier:
    """Predicts the speakers of utterances; returned by `fit_speakers`."""

    pipeline: Pipeline
    rate: int
    in_noise: bool

    def predict(self, utterances: Iterable[Audio]) -> Int[np.ndarray, " n"]:
        """Return the predicted speaker of each utterance."""
        if self.in_noise:
            utterances = _in_noise(utterances, seed=_NOISES)
        return self.pipeline.predict(_statistics(utterances, self.rate))

    def accuracy(self, utterances: Iterable[Audio], speakers: Sequence[int]) -> float:
        """Return the fraction of utterances whose speaker is predicted correctly.

        Utterances of `UNKNOWN` speakers are ignored.

        Raises:
          UserError: if all speakers are unknown.
        """
        known, labels = _with_known_speaker(utterances, speakers)
        require(len(known) > 0, "no utterance to classify has a known speaker")
        return float(np.mean(self.predict(known) == labels))


def fit_speakers(
    utterances: Iterable[Audio],
    speakers: Sequence[int],
    *,
    rate: int,
    in_noise: bool = False,
) -> SpeakerClassifier:
    """Fit a logistic regression on the mean and standard deviation of mel cepstra.

    Loudness, c_0, is excluded because it does not depend on the voice. The microphone's
    frequency response is part of the mean, as the voice's is, so speakers with
    different recording conditions are also distinguished by these.

    Args:
      utterances: utterances to fit to.
      speakers: the speaker of each; utterances of `UNKNOWN` speakers are ignored.
      rate: sample rate in Hz.
      in_noise: add white noise as loud as the utterance, here and when predicting.
        Decoders add noise that recordings do not have; a classifier fitted to clean
        recordings takes it for a trait of a voice, and assigns all decoded speech to
        one speaker.

    Raises:
      UserError: if there are fewer than two speakers.
    """
    known, labels = _with_known_speaker(utterances, speakers)
    found = len(np.unique(labels))
    require(
        found >= 2,
        f"classifying speakers needs at least two speakers, got {found}",
    )
    if in_noise:
        known = [a for seed in range(_NOISES) for a in _in_noise(known, seed=seed)]
        labels = np.tile(labels, _NOISES)
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    pipeline.fit(_statistics(known, rate), labels)
    return SpeakerClassifier(pipeline, rate, in_noise)


def mel_cepstral_distortion_db(a: Audio, b: Audio, *, rate: int) -> float:
    """Return the mel-cepstral distortion between two utterances of the same sentence.

    10 / ln 10 sqrt(2 sum_{d >= 1} (c_d - c'_d)^2) (Kubichek, Mel-Cepstral Distance
    Measure for Objective Speech Quality Assessment, 1993), averaged over the path of
    dynamic time warping. Loudness, c_0, is excluded; silence is not trimmed.

    Args:
      a: samples of one utterance.
      b: samples of the other, of any length.
      rate: sample rate of both, in Hz.
    """
    # The formula needs cepstra of the natural logarithm of the magnitude, scaled as in
    # `features`, and then gives the RMS difference of two spectral envelopes in dB.
    # Cepstra of decibels or of an orthonormal transform would scale the result.
    c, other = (features(audio, rate=rate)[:, 1:] for audio in (a, b))
    return warped_mean(10 / math.log(10) * math.sqrt(2) * cdist(c, other))


def warped_mean(distances: Float[np.ndarray, "N M"]) -> float:
    """Return the mean distance on the path of dynamic time warping (Sakoe, Chiba 1978).

    The path leads from the first pair of frames to the last, advances in one or both
    sequences at each step, and minimises the sum of distances; ties go to the shortest
    path.
    """
    n, m = distances.shape
    # Compute diagonal by diagonal: pairs (i, k - i) of the same k are independent. Row
    # 0 is the sum and row 1 the length of the path to (i, k - i), in column i + 1.
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
    """Return the weights of overlapping triangles of equal width in mel."""
    mel = 2595 * np.log10(1 + scipy.fft.rfftfreq(window, 1 / rate) / 700)
    step = mel[-1] / (_BANDS + 1)
    middles = step * np.arange(1, _BANDS + 1)[:, None]
    weights = np.maximum(0, 1 - np.abs(mel - middles) / step)
    return weights / weights.sum(axis=1, keepdims=True)


def _in_noise(utterances: Iterable[Audio], *, seed: int) -> Iterable[Audio]:
    """Yield utterances mixed with white noise of equal power, at half amplitude."""
    rng = np.random.default_rng(seed)
    for audio in utterances:
        samples = audio / FULL_SCALE
        loudness = math.sqrt(np.mean(samples**2)) if len(samples) else 0.0
        yield to_int16((samples + loudness * rng.standard_normal(len(samples))) / 2)


def _statistics(utterances: Iterable[Audio], rate: int) -> Float[np.ndarray, "n S"]:
    cepstra = (features(audio, rate=rate)[:, 1:] for audio in utterances)
    return np.stack([np.concatenate([c.mean(axis=0), c.std(axis=0)]) for c in cepstra])


def _with_known_speaker(
    utterances: Iterable[Audio], speakers: Sequence[int]
) -> tuple[list[Audio], Int[np.ndarray, " n"]]:
    pairs = zip(utterances, speakers, strict=True)
    known = [(audio, speaker) for audio, speaker in pairs if speaker != UNKNOWN]
    labels = np.array([speaker for _, speaker in known], int)
    return [audio for audio, _ in known], labels
