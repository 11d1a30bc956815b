"""Who speaks in converted speech, and how far it is from what was to be said."""

import numpy as np
import pytest

from vqvae_jax.tasks.speech import conversion, voices
from vqvae_jax.tasks.speech.dataset import SpeechDataset

RATE = 16_000
# Sentences are where the energy goes, speakers how the harmonics fall off.
SENTENCES = {5: (300, 1200), 6: (900, 400)}


def said(speaker: int, sentence: int, seed: int = 0) -> np.ndarray:
    """Half a second at one pitch, half at another, in a speaker's own timbre."""
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
        "audio": said(max(speaker, 0), sentence, seed),
        "speaker": np.int32(speaker),
        "sentence": np.int32(sentence),
    }


class Listed(list):
    """A source of utterances."""

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
    """What stands beside the codes of utterances, in an order of their own."""
    facts = [
        {"index": index, "speaker": e["speaker"], "sentence": e["sentence"]}
        for index, e in enumerate(source)
    ]
    return [{k: np.array(v, np.int32) for k, v in f.items()} for f in facts[::-1]]


CODES = {
    "train": codes_of(TRAIN),
    "validation": codes_of(DATASET.validation),
    "test": codes_of(TEST),
}.__getitem__


def test_speech_in_the_targets_voice_is_near_to_it():
    """Perfect conversion is the target's own recording."""
    source, target = TEST[0], TEST[2]
    found = conversion._of_distances(
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


def test_means_are_over_those_whose_target_says_the_same():
    """One sentence is not known, so only the other one counts."""
    unknown = {**TEST[0], "sentence": np.int32(-1)}
    found = conversion._of_distances(
        [unknown, TEST[1]],
        [TEST[0]["audio"], TEST[3]["audio"]],
        np.array([1, 1]),
        DATASET,
        CODES("test"),
    )
    assert found["converted_to_target_mcd_db"] == 0
    assert not conversion._of_distances(
        [unknown], [TEST[0]["audio"]], np.array([1]), DATASET, CODES("test")
    )


def test_the_classifier_names_the_voices_that_were_put_in():
    samples = {
        "voices": np.array([[0, 1], [1, 2], [2, 0]]),
        "speakers": np.array([0, 1, -1]),
    }
    own = [said(0, 5), said(1, 5), said(0, 6)]
    right = [said(1, 5), said(2, 5), said(0, 5)]
    found = conversion._of_speakers(samples, own, right, DATASET, CODES)
    names = (
        "converted_speaker_accuracy",
        # Of the speakers whom train knows.
        "same_voice_speaker_accuracy",
        "real_speaker_accuracy",
    )
    assert found == {"speaker_chance_accuracy": 1 / 3} | {
        f"{name}{suffix}": 1.0 for name in names for suffix in ("", "_in_noise")
    }
    unchanged = [said(0, 5), said(1, 5), said(2, 5)]
    found = conversion._of_speakers(samples, own, unchanged, DATASET, CODES)
    assert found["converted_speaker_accuracy"] == 0
    assert found["converted_speaker_accuracy_in_noise"] == 0


def test_a_single_speaker_is_not_told_from_others():
    alone = DATASET._replace(speaker_names=("a",))
    assert conversion._of_speakers({}, [], [], alone, CODES) == {}


def test_so_many_of_each_known_speaker():
    source = Listed([*TRAIN, utterance(-1, 5)])
    sounds, speakers = conversion._of_each(source, codes_of(source), 2)
    assert speakers == [0, 0, 1, 1, 2, 2]
    np.testing.assert_array_equal(sounds[1], TRAIN[1]["audio"])


def test_only_the_recordings_of_some_are_read():
    """A corpus has tens of thousands, each to be decoded."""
    read = []

    class Counted(Listed):
        def __getitem__(self, index):
            read.append(index)
            return super().__getitem__(index)

    conversion._of_each(Counted(TRAIN), codes_of(TRAIN), 1)
    # The first of each speaker.
    assert read == [0, 2, 4]
