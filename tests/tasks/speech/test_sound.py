"""WAV files are lossless, and spectrograms show the right times and frequencies."""

import io
import sys

import matplotlib
import numpy as np
import pytest
import soundfile

from vqvae_jax.runtime.errors import UserError
from vqvae_jax.tasks.speech import sound

RATE = 16_000


def tone(hertz, *, seconds=1.0, amplitude=0.5):
    time = np.arange(int(seconds * RATE)) / RATE
    samples = amplitude * np.sin(2 * np.pi * hertz * time)
    return np.round(2**15 * samples).clip(-(2**15), 2**15 - 1).astype(np.int16)


SILENCE = np.zeros(RATE, np.int16)


@pytest.fixture
def draw(pixels_of):
    """A function from clips to the pixels of their spectrograms."""

    def draw(clips, titles):
        return pixels_of(sound.spectrograms(clips, titles, rate=RATE))

    return draw


@pytest.fixture
def panel(draw):
    """A function from a clip to the pixels of its plot area, `[frequency, time]`."""

    def panel(clip):
        silent, ours = (draw([x], ["title"]).sum(axis=2) for x in (SILENCE, clip))
        # The plot area of a silent clip is dark.
        rows, columns = (
            np.flatnonzero((silent < 10).mean(axis=axis) > 0.5) for axis in (1, 0)
        )
        return ours[rows[0] : rows[-1], columns[0] : columns[-1]][::-1]

    return panel


class TestWav:
    @pytest.mark.parametrize("rate", [8000, 16_000, 22_050])
    def test_round_trip_is_lossless(self, rate):
        """Including extreme values and odd lengths, as mono 16-bit PCM."""
        rng = np.random.default_rng(0)
        audio = rng.integers(-(2**15), 2**15, size=1001).astype(np.int16)
        audio[:2] = -(2**15), 2**15 - 1
        content = sound.wav(audio, rate=rate)
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            assert (file.format, file.subtype) == ("WAV", "PCM_16")
            assert (file.samplerate, file.channels) == (rate, 1)
            np.testing.assert_array_equal(file.read(dtype="int16"), audio)

    def test_empty_clip(self):
        content = sound.wav(np.zeros(0, np.int16), rate=RATE)
        assert len(soundfile.read(io.BytesIO(content))[0]) == 0

    def test_missing_package_raises(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "soundfile", None)
        with pytest.raises(UserError, match="soundfile is needed to write recordings"):
            sound.wav(SILENCE, rate=RATE)


class TestSpectrograms:
    @pytest.mark.parametrize("hertz", [1000, 3000, 6500])
    def test_tone_is_a_bright_line_at_its_frequency(self, hertz, panel):
        """On an axis of 0 to 8 kHz from the bottom; silence is dark."""
        brightness = panel(tone(hertz)).mean(axis=1)
        position = brightness.argmax() / len(brightness)
        assert position == pytest.approx(hertz / 8000, abs=0.03)
        assert brightness.max() > 5 * np.median(brightness)
        assert panel(SILENCE).max() < 10

    @pytest.mark.parametrize(("amplitude", "decibels"), [(1.0, 0), (0.1, -20)])
    def test_full_scale_sine_has_0_db(self, amplitude, decibels):
        """In all frames except the outermost, which are partly padding."""
        # The centre of bin 32, at 32 * 16 kHz / 512.
        spectrum = sound._decibels(tone(1000, amplitude=amplitude), 512)
        np.testing.assert_allclose(spectrum[32, 4:-4], decibels, atol=0.01)

    def test_time_axis_points_right(self, panel):
        second_half = np.concatenate([SILENCE[: RATE // 2], tone(1000, seconds=0.5)])
        brightest = panel(second_half).max(axis=0)
        position = np.argmax(brightest > 100) / len(brightest)
        assert position == pytest.approx(0.5, abs=0.05)
        assert (brightest[: int(0.4 * len(brightest))] < 10).all()
        assert (brightest[int(0.6 * len(brightest)) :] > 100).all()

    def test_clips_share_the_colour_scale(self, draw):
        """A quieter clip is darker than a louder one in the same figure."""
        loud = tone(1000)
        pair = [[loud, tone(1000, amplitude=a)] for a in (0.5, 0.005)]
        ours, quieter = (draw(clips, ["one", "two"]) for clips in pair)
        middle = len(ours) // 2
        # The first row does not change, because the peak is the same.
        np.testing.assert_array_equal(ours[: middle - 40], quieter[: middle - 40])
        assert ours[middle:].sum() > quieter[middle:].sum()

    def test_clips_of_any_length_get_one_row_each(self, draw):
        clips = [tone(500, seconds=s) for s in (1.5, 0.3, 0.001, 0.0)]
        titles = ["long", "short", "shorter than a window", "nothing"]
        heights = [len(draw(clips[:n], titles[:n])) for n in (1, 2, 4)]
        per_row = heights[1] - heights[0]
        assert heights[2] == pytest.approx(heights[0] + 3 * per_row, abs=2)

    def test_long_titles_are_truncated(self, draw):
        """To 56 characters; shorter titles are shown completely."""
        letters = ["ab" * 28 + "cd" * 20, "ab" * 28 + "ef" * 20, "ab" * 28]
        long, as_long, fits = (draw([SILENCE], [title]) for title in letters)
        np.testing.assert_array_equal(long, as_long)
        assert (long != fits).any()

    def test_matplotlib_settings_are_unchanged(self):
        with matplotlib.rc_context({"image.cmap": "gray"}):
            before = dict(matplotlib.rcParams)
            sound.spectrograms([SILENCE], ["silence"], rate=RATE)
            assert dict(matplotlib.rcParams) == before

    def test_no_clips_and_missing_titles_raise(self):
        with pytest.raises(UserError, match="at least one clip, got none"):
            sound.spectrograms([], [], rate=RATE)
        with pytest.raises(ValueError, match="shorter"):
            sound.spectrograms([SILENCE, SILENCE], ["one"], rate=RATE)
