"""The report on speech: its sections, spectrograms, and the page in Chromium."""

import matplotlib
import numpy as np
import pytest
from page_checks import assert_accessible

from vqvae_jax.runtime.errors import UserError
from vqvae_jax.tasks.speech import report
from vqvae_jax.tasks.speech.dataset import SpeechDataset
from vqvae_jax.workdir import Workdir

LENGTHS = (400, 300)


@pytest.fixture
def dataset():
    test = [
        {"audio": np.full(n, 10 * n, np.int16), "speaker": np.int32(speaker)}
        for n, speaker in zip(LENGTHS, (0, -1), strict=True)
    ]
    return SpeechDataset(
        train=(),
        validation=(),
        test=test,
        speaker_names=("ann", "b<b"),
        phone_names=("A",),
        sample_rate=8000,
    )


SAMPLES = {
    "index": np.array([0, 1]),
    "speakers": np.array([0, -1]),
    "voices": np.array([[0, 1], [1, 0]]),
    "audio": np.zeros((2, 2, 512), np.int16),
    "drawn_audio": np.zeros((2, 256), np.int16),
    "drawn_voices": np.array([1, 0]),
}


def test_each_utterance_is_shown_with_its_syntheses(dataset):
    first, second = report._utterances(SAMPLES, dataset)
    assert [s.caption for s in first.sounds] == [
        "Original, by ann",
        "Decoded, same speaker",
        "Converted to b<b",
    ]
    # The decoder has no voice for speakers unknown to train.
    assert [s.caption for s in second.sounds] == [
        "Original, by a speaker unknown to train",
        "Converted to b<b",
        "Converted to ann",
    ]
    for section, length in zip((first, second), LENGTHS, strict=True):
        # As long as the utterance; the header of a WAV file has 44 bytes.
        assert {len(s.wav) for s in section.sounds} == {44 + 2 * length}
        assert section.pictures[0].image.startswith(b"<svg")


def test_each_sample_has_a_player(dataset):
    section = report._samples(SAMPLES, dataset)
    assert [s.caption for s in section.sounds] == ["As b<b", "As ann"]


def test_phonemes_that_do_not_occur_are_left_out(tmp_path):
    workdir = Workdir(tmp_path)

    def picture(confusion, names):
        workdir.write_arrays(
            workdir.phones, confusion=np.array(confusion), phone_names=np.array(names)
        )
        return report._phonemes(workdir, {}).pictures[0].image

    expected = picture([[3, 1], [0, 4]], ["A", "B"])
    assert picture([[3, 0, 1], [0, 0, 0], [0, 0, 4]], ["A", "X", "B"]) == expected


def test_phonemes_are_shown_with_and_without_silence(tmp_path):
    workdir = Workdir(tmp_path)
    workdir.write_arrays(
        workdir.phones, confusion=np.eye(2, dtype=int), phone_names=np.array(["A", "B"])
    )
    results = {"phoneme_accuracy": 0.437, "phoneme_chance_accuracy": 0.225}
    head, whole = report._phonemes(workdir, results).table
    assert (head, whole) == (
        ("", "accuracy", "chance"),
        ("all frames", "43.7%", "22.5%"),
    )
    results |= {
        "phoneme_accuracy_without_silence": 0.3,
        "phoneme_chance_accuracy_without_silence": 0.126,
    }
    assert report._phonemes(workdir, results).table == (
        head,
        whole,
        ("without silence", "30.0%", "12.6%"),
    )


def test_tables_show_results():
    names = ("", "_codes_moved", "_codes_shuffled", "_other_codes")
    results = {f"test_bits_per_sample{n}": 4.0 + i for i, n in enumerate(names)}
    rows = report._code_use(results).table
    assert [row[1] for row in rows[1:]] == ["4.000", "5.000", "6.000", "7.000"]
    voices = {
        "speaker_chance_accuracy": 0.1,
        "converted_speaker_accuracy": 0.25,
        "converted_speaker_accuracy_in_noise": 0.5,
    }
    assert report._voices(voices).table[1:] == (
        ("converted, target speaker", "25.0%", "50.0%"),
        ("chance", "10.0%", "10.0%"),
    )


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
        return pixels_of(report.spectrograms(clips, titles, rate=RATE))

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
        spectrum = report._decibels(tone(1000, amplitude=amplitude), 512)
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
            report.spectrograms([SILENCE], ["silence"], rate=RATE)
            assert dict(matplotlib.rcParams) == before

    def test_no_clips_and_missing_titles_raise(self):
        with pytest.raises(UserError, match="at least one clip, got none"):
            report.spectrograms([], [], rate=RATE)
        with pytest.raises(ValueError, match="shorter"):
            report.spectrograms([SILENCE, SILENCE], ["one"], rate=RATE)


@pytest.mark.slow
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_page_is_self_contained_responsive_and_accessible(
    speech_run, open_page, barriers, theme
):
    assert_accessible(open_page, barriers, speech_run / "report.html", theme=theme)
