"""Sound of a page: files bit for bit, and spectrograms that show what is heard."""

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
    """The function from clips to the pixels of their spectrograms."""

    def draw(clips, titles):
        return pixels_of(sound.spectrograms(clips, titles, rate=RATE))

    return draw


@pytest.fixture
def panel(draw):
    """The function from a clip to its spectrogram alone, `[frequency, time]`."""

    def panel(clip):
        silent, ours = (draw([x], ["title"]).sum(axis=2) for x in (SILENCE, clip))
        # All of it is dark where nothing is heard.
        rows, columns = (
            np.flatnonzero((silent < 10).mean(axis=axis) > 0.5) for axis in (1, 0)
        )
        return ours[rows[0] : rows[-1], columns[0] : columns[-1]][::-1]

    return panel


class TestWav:
    @pytest.mark.parametrize("rate", [8000, 16_000, 22_050])
    def test_reads_back_bit_for_bit(self, rate):
        """The extremes and odd lengths too, as 16-bit PCM of one channel."""
        rng = np.random.default_rng(0)
        audio = rng.integers(-(2**15), 2**15, size=1001).astype(np.int16)
        audio[:2] = -(2**15), 2**15 - 1
        content = sound.wav(audio, rate=rate)
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            assert (file.format, file.subtype) == ("WAV", "PCM_16")
            assert (file.samplerate, file.channels) == (rate, 1)
            np.testing.assert_array_equal(file.read(dtype="int16"), audio)

    def test_nothing_is_a_file_of_no_samples(self):
        content = sound.wav(np.zeros(0, np.int16), rate=RATE)
        assert len(soundfile.read(io.BytesIO(content))[0]) == 0

    def test_a_missing_package_is_told(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "soundfile", None)
        with pytest.raises(UserError, match="soundfile is needed to write recordings"):
            sound.wav(SILENCE, rate=RATE)


class TestSpectrograms:
    @pytest.mark.parametrize("hertz", [1000, 3000, 6500])
    def test_a_tone_is_a_bright_line_at_its_frequency(self, hertz, panel):
        """Of 0 ... 8 kHz from below; silence is dark everywhere."""
        brightness = panel(tone(hertz)).mean(axis=1)
        place = brightness.argmax() / len(brightness)
        assert place == pytest.approx(hertz / 8000, abs=0.03)
        assert brightness.max() > 5 * np.median(brightness)
        assert panel(SILENCE).max() < 10

    @pytest.mark.parametrize(("amplitude", "decibels"), [(1.0, 0), (0.1, -20)])
    def test_a_sine_at_full_scale_has_0_db(self, amplitude, decibels):
        """In every frame but the outermost, which half of the sine is in."""
        # A frequency of the spectrum's own: the 32nd of 16 kHz / 512.
        spectrum = sound._decibels(tone(1000, amplitude=amplitude), 512)
        np.testing.assert_allclose(spectrum[32, 4:-4], decibels, atol=0.01)

    def test_time_goes_to_the_right(self, panel):
        second_half = np.concatenate([SILENCE[: RATE // 2], tone(1000, seconds=0.5)])
        brightest = panel(second_half).max(axis=0)
        place = np.argmax(brightest > 100) / len(brightest)
        assert place == pytest.approx(0.5, abs=0.05)
        assert (brightest[: int(0.4 * len(brightest))] < 10).all()
        assert (brightest[int(0.6 * len(brightest)) :] > 100).all()

    def test_a_quieter_clip_is_darker_than_the_loud_one_beside_it(self, draw):
        """Colours mean the same dB in all of a picture."""
        loud = tone(1000)
        pair = [[loud, tone(1000, amplitude=a)] for a in (0.5, 0.005)]
        ours, quieter = (draw(clips, ["one", "two"]) for clips in pair)
        middle = len(ours) // 2
        # Under the first title nothing differs, as the loudest is the same.
        np.testing.assert_array_equal(ours[: middle - 40], quieter[: middle - 40])
        assert ours[middle:].sum() > quieter[middle:].sum()

    def test_clips_of_any_length_have_a_row_each(self, draw):
        clips = [tone(500, seconds=s) for s in (1.5, 0.3, 0.001, 0.0)]
        titles = ["long", "short", "shorter than a window", "nothing"]
        heights = [len(draw(clips[:n], titles[:n])) for n in (1, 2, 4)]
        per_row = heights[1] - heights[0]
        assert heights[2] == pytest.approx(heights[0] + 3 * per_row, abs=2)

    def test_a_long_title_is_cut_where_the_picture_ends(self, draw):
        """At 56 letters; up to there each of them is shown."""
        letters = ["ab" * 28 + "cd" * 20, "ab" * 28 + "ef" * 20, "ab" * 28]
        long, as_long, fits = (draw([SILENCE], [title]) for title in letters)
        np.testing.assert_array_equal(long, as_long)
        assert (long != fits).any()

    def test_settings_of_matplotlib_stay(self):
        with matplotlib.rc_context({"image.cmap": "gray"}):
            before = dict(matplotlib.rcParams)
            sound.spectrograms([SILENCE], ["silence"], rate=RATE)
            assert dict(matplotlib.rcParams) == before

    def test_no_clips_and_missing_titles_are_told(self):
        with pytest.raises(UserError, match="at least one clip, got none"):
            sound.spectrograms([], [], rate=RATE)
        with pytest.raises(ValueError, match="shorter"):
            sound.spectrograms([SILENCE, SILENCE], ["one"], rate=RATE)
