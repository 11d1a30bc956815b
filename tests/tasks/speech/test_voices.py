"""Cepstra and distortion against closed forms, speaker accuracy against chance."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest

from vqvae_jax.runtime.errors import UserError
from vqvae_jax.tasks.speech import audio
from vqvae_jax.tasks.speech.voices import (
    _in_noise,
    features,
    fit_speakers,
    mel_cepstral_distortion_db,
    warped_mean,
)

AN4 = Path(__file__).parents[4] / "shared" / "data" / "an4"
RATE = 16_000


def int16(samples):
    return np.round(np.clip(samples, -1, 1) * 32_767).astype(np.int16)


def voice(rng, formants, *, pitch=None, seconds=0.5, gain=0.3):
    """Harmonics of a random pitch, louder near the formants, and some noise."""
    pitch = pitch or rng.uniform(90, 220)
    time = np.arange(int(seconds * RATE)) / RATE
    harmonics = pitch * np.arange(1, int(RATE / 2 / pitch))
    loudness = 0.01 + sum(
        np.exp(-(((harmonics - f) / 250) ** 2)) for f in np.atleast_1d(formants)
    )
    phases = rng.uniform(0, 2 * np.pi, size=len(harmonics))
    waves = np.sin(2 * np.pi * harmonics * time[:, None] + phases)
    sound = waves @ loudness
    noise = 1e-3 * rng.standard_normal(len(time))
    return int16(gain * (sound / np.abs(sound).max() + noise))


def click(*filter_taps):
    """400 samples, one window, with a filtered click where the window is 1."""
    samples = np.zeros(400)
    samples[200 : 200 + len(filter_taps)] = filter_taps
    return int16(samples / 2)


class TestFeatures:
    @pytest.mark.parametrize(
        ("samples", "frames"),
        [(0, 1), (1, 1), (400, 1), (401, 2), (560, 2), (561, 3), (16_000, 99)],
    )
    def test_windows_cover_all_samples(self, samples, frames):
        """Windows of 400 samples every 160, the last one padded."""
        sound = np.zeros(samples, np.int16)
        silent = features(sound, rate=RATE)
        assert silent.shape == (frames, 25)
        if samples:
            # Loud enough to be measurable at the edge of the window.
            sound[-1] = 30_000
            assert features(sound, rate=RATE)[-1, 0] > silent[-1, 0] + 1

    @pytest.mark.parametrize("rate", [4_000, 8_000, 22_050, 48_000])
    def test_silence_and_full_scale_are_finite(self, rate):
        silence = features(np.zeros(rate, np.int16), rate=rate)
        # The power of rounding, equal at all frequencies.
        np.testing.assert_allclose(silence[:, 0], math.log(2**-30 / 12) / 2)
        np.testing.assert_allclose(silence[:, 1:], 0, atol=1e-9)
        square = np.where(np.arange(rate) // 20 % 2, 32_767, -32_768).astype(np.int16)
        assert np.isfinite(features(square, rate=rate)).all()

    def test_white_noise_has_its_magnitude_and_a_flat_spectrum(self):
        """E ln of a mean of many exponentials is slightly below the ln of its mean."""
        rng = np.random.default_rng(0)
        cepstra = features(int16(0.05 * rng.standard_normal(60 * RATE)), rate=RATE)
        assert cepstra[:, 0].mean() == pytest.approx(math.log(0.05), abs=0.15)
        np.testing.assert_allclose(cepstra[:, 5:].mean(axis=0), 0, atol=0.02)

    def test_loudness_changes_only_c_0(self):
        sound = voice(np.random.default_rng(0), 900)
        quiet = features((sound // 2).astype(np.int16), rate=RATE)
        loud = features(sound, rate=RATE)
        np.testing.assert_allclose(loud[:, 0] - quiet[:, 0], math.log(2), atol=0.02)
        np.testing.assert_allclose(loud[:, 1:], quiet[:, 1:], atol=0.03)

    def test_bands_follow_the_mel_scale(self):
        """sum_d c_d cos(pi d x) peaks where x is a tone's mel over the highest mel."""
        mel = lambda hertz: 2595 * math.log10(1 + hertz / 700)  # noqa: E731
        x = np.linspace(0, 1, 1001)
        for hertz in (300, 1_000, 2_500, 6_000):
            time = np.arange(RATE) / RATE
            cepstra = features(int16(0.5 * np.sin(2 * np.pi * hertz * time)), rate=RATE)
            log_magnitude = np.cos(np.pi * np.outer(x, np.arange(25))) @ cepstra[50]
            assert x[log_magnitude.argmax()] == pytest.approx(
                mel(hertz) / mel(RATE / 2), abs=0.03
            )


SIZES = list(itertools.product(range(1, 6), repeat=2))


def paths(n, m):
    """Every path of pairs from (0, 0) to (n - 1, m - 1)."""
    if (n, m) == (1, 1):
        return [[(0, 0)]]
    before = [(n - 1, m), (n, m - 1), (n - 1, m - 1)]
    return [
        [*path, (n - 1, m - 1)] for a, b in before if a and b for path in paths(a, b)
    ]


class TestWarpedMean:
    @pytest.mark.parametrize(("n", "m"), SIZES)
    def test_matches_enumeration_of_all_paths(self, n, m):
        """Including small integers, where ties occur and go to the shortest path."""
        rng = np.random.default_rng(n * 7 + m)
        integers = rng.integers(3, size=(30, n, m)).astype(float)
        for distances in (rng.random((n, m)), *integers):
            costs = [[distances[pair] for pair in path] for path in paths(n, m)]
            least = min((sum(cost), len(cost)) for cost in costs)
            assert warped_mean(distances) == pytest.approx(least[0] / least[1])

    def test_is_symmetric(self):
        rng = np.random.default_rng(0)
        for shape in ((30, 41), (1, 9), (17, 17)):
            for distances in (rng.random(shape), rng.integers(4, size=shape) * 1.0):
                assert warped_mean(distances) == warped_mean(distances.T)

    def test_stretching_costs_nothing(self):
        sequence = np.random.default_rng(0).random(40)
        stretched = np.repeat(sequence, np.arange(40) % 3 + 1)
        distances = np.abs(sequence[:, None] - stretched)
        assert warped_mean(distances) == 0
        assert np.mean(np.diag(distances)) > 0.2

    def test_minimises_the_sum_not_the_mean(self):
        """A sum of 2 over two pairs beats 2.5 over three, despite its larger mean."""
        assert warped_mean(np.array([[1.0, 0.5], [9.0, 1.0]])) == 1

    def test_ties_go_to_the_shortest_path(self):
        assert warped_mean(np.array([[1.0, 0.0], [0.0, 1.0]])) == 1


class TestDistortion:
    @pytest.mark.parametrize("taps", [(1, 0.5), (1, -0.5), (0.5, 0.7, 0.4)])
    def test_is_the_rms_difference_of_spectra_in_db(self, taps):
        """A click has a flat spectrum, a filtered click that of the filter."""
        mel = np.linspace(0, 2595 * math.log10(1 + RATE / 2 / 700), 2_002)[1:-1]
        omega = 2 * np.pi * 700 * (10 ** (mel / 2595) - 1) / RATE
        response = np.exp(-1j * np.outer(omega, np.arange(len(taps)))) @ taps
        expected = np.std(20 * np.log10(np.abs(response)))
        found = mel_cepstral_distortion_db(click(1), click(*taps), rate=RATE)
        assert found == pytest.approx(expected, rel=0.05)

    def test_matches_the_formula_for_stationary_sounds(self):
        """With a period of 160 samples, all windows of a sound are equal."""
        rng = np.random.default_rng(0)
        a, b = (
            np.tile(int16(0.1 * rng.standard_normal(160)), 15)[: 400 + 160 * hops]
            for hops in (4, 10)
        )
        c, other = features(a, rate=RATE), features(b, rate=RATE)
        assert (len(c), len(other)) == (5, 11)
        np.testing.assert_allclose(c, np.tile(c[:1], (5, 1)), atol=1e-9)
        total = sum((c[0, d] - other[0, d]) ** 2 for d in range(1, 25))
        expected = 10 / math.log(10) * math.sqrt(2 * total)
        found = mel_cepstral_distortion_db(a, b, rate=RATE)
        assert found == pytest.approx(expected)
        assert expected > 3

    def test_is_zero_for_equal_sounds_and_symmetric(self):
        rng = np.random.default_rng(0)
        a = voice(rng, [500, 1_500])
        b = voice(rng, [800, 2_500], seconds=0.8)
        assert mel_cepstral_distortion_db(a, a, rate=RATE) == 0
        distortion = mel_cepstral_distortion_db(a, b, rate=RATE)
        assert distortion == mel_cepstral_distortion_db(b, a, rate=RATE)
        assert distortion > 3

    def test_ignores_loudness(self):
        sound = voice(np.random.default_rng(0), 900)
        quiet = (sound // 4).astype(np.int16)
        assert mel_cepstral_distortion_db(sound, quiet, rate=RATE) < 0.3

    def test_speaking_rate_has_little_effect(self):
        """Two vowels of different durations, compared with a single long vowel."""
        vowels = [
            np.tile(voice(np.random.default_rng(i), f, pitch=100), 4)
            for i, f in enumerate((500, 2_000))
        ]
        fast = np.concatenate([vowels[0][:3_200], vowels[1][:3_200]])
        slow = np.concatenate([vowels[0][:9_600], vowels[1][:4_800]])
        same = mel_cepstral_distortion_db(fast, slow, rate=RATE)
        other = mel_cepstral_distortion_db(fast, vowels[0][:14_400], rate=RATE)
        assert same < other / 4

    def test_silence_and_empty_audio_are_finite(self):
        empty, silence = np.zeros(0, np.int16), np.zeros(RATE, np.int16)
        assert mel_cepstral_distortion_db(empty, silence, rate=RATE) < 1e-6
        sound = voice(np.random.default_rng(0), 900)
        assert 1 < mel_cepstral_distortion_db(sound, empty, rate=RATE) < 100


FORMANTS = ([400, 2_000], [700, 1_200], [500, 3_000])


@pytest.fixture(scope="module")
def voices():
    """Sounds of three speakers at random pitch and loudness, and their speakers."""
    rng = np.random.default_rng(0)
    speakers = [7, 2, 4] * 8
    sounds = [
        voice(rng, FORMANTS[[7, 2, 4].index(name)], gain=rng.uniform(0.1, 0.9))
        for name in speakers
    ]
    return sounds, speakers


class TestSpeakers:
    def test_classifies_speakers(self, voices):
        sounds, speakers = voices
        classifier = fit_speakers(sounds[:12], speakers[:12], rate=RATE)
        assert classifier.predict(sounds[12:]).tolist() == speakers[12:]
        assert classifier.accuracy(sounds[12:], speakers[12:]) == 1

    def test_accuracy_is_the_fraction_of_correct_predictions(self, voices):
        sounds, speakers = voices
        classifier = fit_speakers(sounds[:12], speakers[:12], rate=RATE)
        # Two of six labels are wrong and a third is unknown.
        labels = [2, 4, 4, 7, 2, -1]
        assert speakers[12:18] == [7, 2, 4, 7, 2, 4]
        assert classifier.accuracy(sounds[12:18], labels) == 3 / 5

    def test_loudness_does_not_identify_speakers(self):
        """Loud and quiet sounds of one voice are indistinguishable."""
        rng = np.random.default_rng(0)
        speakers = [0, 1] * 30
        sounds = [
            voice(rng, 800, seconds=0.1, gain=(0.9, 0.3)[name]) for name in speakers
        ]
        classifier = fit_speakers(sounds[:30], speakers[:30], rate=RATE)
        assert classifier.accuracy(sounds[30:], speakers[30:]) < 0.8

    def test_variation_over_time_identifies_speakers(self):
        """Noise filtered by 1 + 0.6 z and 1 - 0.6 z in turn, or by their mean in dB.

        The latter is the root of 1 - 0.36 z**2, with the series 1 - 0.18 z**2 - ....
        """
        rng = np.random.default_rng(0)
        mean = (1, 0, -0.18, 0, -0.0162, 0, -0.0029)

        def noise(*filters):
            white = rng.standard_normal((len(filters), 1_600))
            return int16(0.1 * np.concatenate([*map(np.convolve, white, filters)]))

        names = [0, 1] * 20
        sounds = [
            noise(*[[mean] * 6, [(1, 0.6), (1, -0.6)] * 3][name]) for name in names
        ]
        classifier = fit_speakers(sounds[:20], names[:20], rate=RATE)
        assert classifier.accuracy(sounds[20:], names[20:]) == 1

    def test_in_noise_is_robust_to_noise_that_recordings_do_not_have(self, voices):
        """Such as a decoder's, with which a clean classifier predicts few speakers."""
        sounds, speakers = voices
        rng = np.random.default_rng(1)
        noisy = [
            int16(
                (sound + 0.3 * sound.std() * rng.standard_normal(len(sound))) / 65_536
            )
            for sound in sounds[12:]
        ]
        clean, in_noise = (
            fit_speakers(sounds[:12], speakers[:12], rate=RATE, in_noise=option)
            for option in (False, True)
        )
        assert clean.accuracy(noisy, speakers[12:]) < 0.7
        assert in_noise.accuracy(noisy, speakers[12:]) > 0.9
        assert in_noise.accuracy(sounds[12:], speakers[12:]) > 0.9

    def test_noise_is_as_loud_as_the_utterance(self):
        sound = int16(0.2 * np.sin(np.arange(RATE) / 5))
        silence = np.zeros(100, np.int16)
        noisy, silent, empty = _in_noise([sound, silence, silence[:0]], seed=0)
        noise = 2.0 * noisy - sound
        assert noise.std() == pytest.approx(sound.std(), rel=0.02)
        assert np.corrcoef(noise[1:], noise[:-1])[0, 1] == pytest.approx(0, abs=0.03)
        assert not silent.any()
        assert empty.shape == (0,)

    def test_unknown_speakers_are_ignored(self, voices):
        sounds, speakers = voices
        labels = [-1, *speakers[1:12]]
        classifier = fit_speakers(iter(sounds[:12]), labels, rate=RATE)
        assert set(classifier.predict(sounds).tolist()) == {2, 4, 7}
        with pytest.raises(UserError, match=r"no utterance .* has a known speaker"):
            classifier.accuracy(sounds[:2], [-1, -1])

    @pytest.mark.parametrize(("speakers", "found"), [([5, 5], 1), ([5, -1], 1)])
    def test_fitting_a_single_speaker_raises(self, voices, speakers, found):
        with pytest.raises(UserError, match=f"at least two speakers, got {found}"):
            fit_speakers(voices[0][:2], speakers, rate=RATE)

    @pytest.mark.skipif(not AN4.is_dir(), reason="AN4 is not available")
    def test_an4(self):
        """Half of the utterances of 20 speakers; chance is 5 %."""
        pytest.importorskip("soundfile", reason="soundfile is not installed")
        speakers = sorted((AN4 / "train").iterdir())[:20]
        halves = ([], []), ([], [])
        for number, speaker in enumerate(speakers):
            for i, file in enumerate(sorted(speaker.glob("*.flac"))):
                utterances, names = halves[i % 2]
                utterances.append(audio.read(str(file), rate=RATE))
                names.append(number)
        classifier = fit_speakers(*halves[0], rate=RATE)
        assert classifier.accuracy(*halves[1]) > 0.6
