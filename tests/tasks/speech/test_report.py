"""The sections of the report on speech."""

import numpy as np
import pytest

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
        return report._phonemes(workdir).pictures[0].image

    expected = picture([[3, 1], [0, 4]], ["A", "B"])
    assert picture([[3, 0, 1], [0, 0, 0], [0, 0, 4]], ["A", "X", "B"]) == expected


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
