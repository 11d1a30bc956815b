"""Speaker accuracy and distortion of conversions, on synthetic voices."""

import numpy as np
import pytest

from vqvae_jax.tasks.speech import conversion, voices
from vqvae_jax.tasks.speech.dataset import SpeechDataset

RATE = 16_000
# A sentence is a sequence of pitches, a speaker the decay of the harmonics.
SENTENCES = {5: (300, 1200), 6: (900, 400)}


def speak(speaker: int, sentence: int, seed: int = 0) -> np.ndarray:
    """A quarter of a second at each of two pitches, in the timbre of a speaker."""
    rng = np.random.default_rng((speaker, sentence, seed))
    time = np.arange(RATE // 4) / RATE
    parts = []
    for pitch in SENTENCES[sentence]:
        harmonics = np.arange(1, 6)
        strengths = np.exp(-0.7 * speaker * harmonics) if speaker else 1 / harmonics
        waves = np.sin(2 * np.pi * pitch * harmonics[:, None] * time)
        parts.append(strengths @ waves)
    wave = np.concatenate(parts)
    wave = wave / np.abs(wave).max() + 0.01 * rng.normal(size=wave.size)
    return np.int16(8000 * wave)


def utterance(speaker, sentence, seed=0):
    return {
        "audio": speak(max(speaker, 0), sentence, seed),
        "speaker": np.int32(speaker),
        "sentence": np.int32(sentence),
    }


class Listed(list):
    """A list as a source of utterances."""

    @property
    def lengths(self):
        return np.array([len(e["audio"]) for e in self])


TEST = Listed(utterance(s, t) for s in (0, 1, 2) for t in SENTENCES)
TRAIN = Listed(
    utterance(s, t, n) for n in (1, 2, 3) for s in (0, 1, 2) for t in SENTENCES
)
DATASET = SpeechDataset(
    train=TRAIN,
    validation=Listed(utterance(s, 5, 9) for s in (0, 1, 2, -1)),
    test=TEST,
    speaker_names=("a", "b", "c"),
    phone_names=(),
    sample_rate=RATE,
)


def codes_of(source):
    """The labels stored with the codes of utterances, in another order."""
    labels = [
        {"index": index, "speaker": e["speaker"], "sentence": e["sentence"]}
        for index, e in enumerate(source)
    ]
    return [{k: np.array(v, np.int32) for k, v in row.items()} for row in labels[::-1]]


CODES = {
    "train": codes_of(TRAIN),
    "validation": codes_of(DATASET.validation),
    "test": codes_of(TEST),
}.__getitem__


def test_targets_recording_has_no_distortion():
    """A perfect conversion is the recording of the target speaker."""
    source, target = TEST[0], TEST[2]
    found = conversion._distortions(
        [source], [target["audio"]], np.array([1]), DATASET, CODES("test")
    )
    assert found["converted_to_target_mcd_db"] == 0
    assert found["source_to_target_mcd_db"] == pytest.approx(
        voices.mel_cepstral_distortion_db(source["audio"], target["audio"], rate=RATE)
    )
    other = TEST[3]["audio"]
    assert found["converted_to_target_other_sentence_mcd_db"] == pytest.approx(
        voices.mel_cepstral_distortion_db(target["audio"], other, rate=RATE)
    )


def test_distortion_averages_over_sentences_the_target_says():
    """An utterance with an unknown sentence is ignored."""
    unknown = {**TEST[0], "sentence": np.int32(-1)}
    found = conversion._distortions(
        [unknown, TEST[1]],
        [TEST[0]["audio"], TEST[3]["audio"]],
        np.array([1, 1]),
        DATASET,
        CODES("test"),
    )
    assert found["converted_to_target_mcd_db"] == 0
    assert not conversion._distortions(
        [unknown], [TEST[0]["audio"]], np.array([1]), DATASET, CODES("test")
    )


def test_classifier_recognises_the_converted_voices():
    samples = {
        "voices": np.array([[0, 1], [1, 2], [2, 0]]),
        "speakers": np.array([0, 1, -1]),
    }
    same_voice = [speak(0, 5), speak(1, 5), speak(0, 6)]
    converted = [speak(1, 5), speak(2, 5), speak(0, 5)]
    found = conversion._speaker_accuracies(
        samples, same_voice, converted, DATASET, CODES
    )
    names = (
        "converted_speaker_accuracy",
        # Over the speakers in train.
        "same_voice_speaker_accuracy",
        "real_speaker_accuracy",
    )
    assert found == {"speaker_chance_accuracy": 1 / 3} | {
        f"{name}{suffix}": 1.0 for name in names for suffix in ("", "_in_noise")
    }
    unchanged = [speak(0, 5), speak(1, 5), speak(2, 5)]
    found = conversion._speaker_accuracies(
        samples, same_voice, unchanged, DATASET, CODES
    )
    assert found["converted_speaker_accuracy"] == 0
    assert found["converted_speaker_accuracy_in_noise"] == 0


def test_single_speaker_has_no_speaker_accuracies():
    dataset = DATASET._replace(speaker_names=("a",))
    assert conversion._speaker_accuracies({}, [], [], dataset, CODES) == {}


def test_utterances_per_known_speaker_are_limited():
    source = Listed([*TRAIN, utterance(-1, 5)])
    clips, speakers = conversion._utterances_per_speaker(source, codes_of(source), 2)
    assert speakers == [0, 0, 1, 1, 2, 2]
    np.testing.assert_array_equal(clips[1], TRAIN[1]["audio"])


def test_only_selected_recordings_are_read():
    """Decoding the tens of thousands of recordings of a corpus would be slow."""
    read = []

    class Counted(Listed):
        def __getitem__(self, index):
            read.append(index)
            return super().__getitem__(index)

    conversion._utterances_per_speaker(Counted(TRAIN), codes_of(TRAIN), 1)
    # The first of each speaker.
    assert read == [0, 2, 4]
