"""The synthetic speech set: sizes, sentences, phones and determinism."""

import hashlib
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from vqvae_jax.contrib.synthetic_speech import builder, espeak
from vqvae_jax.contrib.synthetic_speech.espeak import Phoneme
from vqvae_jax.runtime.errors import UserError

pytest.importorskip("vqvae_jax.tasks.speech", reason="reads the set as the task does")
pytest.importorskip("soxr", reason="soxr is not installed")
needs_espeak = pytest.mark.skipif(
    not espeak.is_available(),
    reason="eSpeak NG is not installed: pip install espeakng-loader",
)
SIZES = {"train": 9, "validation": 3, "test": 6}


def prepared(data_dir, **changes):
    from vqvae_jax.tasks.speech.dataset import SpeechDataConfig, open_speech

    options = {"source": "tfds", "name": "speech/tiny", "crop_samples": 4_000}
    return open_speech(SpeechDataConfig(**options | changes, data_dir=str(data_dir)))


def read(source):
    return [source[index] for index in range(len(source))]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("speech")


@pytest.fixture(scope="module")
def dataset(data_dir):
    return prepared(data_dir)


@pytest.fixture(scope="module")
def utterances(dataset):
    return {split: read(getattr(dataset, split)) for split in SIZES}


@needs_espeak
class TestSpeech:
    def test_sizes_and_types(self, dataset, utterances):
        assert dataset.speaker_names == ("f1", "m1", "m2")
        assert dataset.phone_names == builder.PHONES
        assert dataset.sample_rate == 16_000
        for split, size in SIZES.items():
            assert len(utterances[split]) == size
            for utterance in utterances[split]:
                assert utterance["audio"].dtype == np.int16
                assert utterance["speaker"].dtype == np.int32
                assert utterance["sentence"].dtype == np.int32
                assert utterance["phones"].dtype == np.int32
                assert 1.0 < len(utterance["audio"]) / 16_000 < 6.0
                peak = np.abs(utterance["audio"].astype(int)).max()
                assert abs(peak - 0.7 * 2**15) <= 1
            lengths = [len(utterance["audio"]) for utterance in utterances[split]]
            assert getattr(dataset, split).lengths.tolist() == lengths

    def test_phones_cover_the_utterance_without_gaps(self, utterances):
        for utterance in [u for split in utterances.values() for u in split]:
            starts, ends, ids = utterance["phones"].T
            assert starts[0] == 0
            assert ends[-1] == len(utterance["audio"])
            np.testing.assert_array_equal(starts[1:], ends[:-1])
            assert (starts < ends).all()
            assert ids.min() >= 0
            assert ids.max() < len(builder.PHONES)
            assert len(ids) > 15

    def test_silence_is_much_quieter_than_speech(self, utterances):
        for utterance in utterances["train"]:
            loudness = {True: [], False: []}
            for start, end, phone in utterance["phones"]:
                part = utterance["audio"][start:end].astype(float)
                loudness[bool(phone == 0)].append(np.sqrt((part**2).mean()))
            assert np.mean(loudness[True]) < 0.1 * np.mean(loudness[False])

    def test_no_sentence_is_in_two_splits(self, utterances):
        found = {s: {int(u["sentence"]) for u in us} for s, us in utterances.items()}
        assert not found["train"] & found["validation"]
        assert not found["train"] & found["test"]
        assert not found["validation"] & found["test"]
        # Sentences of one speaker each, and in test one that all speakers say.
        assert {s: len(numbers) for s, numbers in found.items()} == {
            "train": 9,
            "validation": 3,
            "test": 4,
        }

    def test_all_speakers_say_the_shared_sentence(self, utterances):
        shared = [u for u in utterances["test"] if u["sentence"] == 0]
        assert [int(u["speaker"]) for u in shared] == [0, 1, 2]
        # Equal phones, with different durations.
        spoken = [u["phones"][u["phones"][:, 2] != 0, 2].tolist() for u in shared]
        assert spoken[0] == spoken[1] == spoken[2]
        assert len({len(u["audio"]) for u in shared}) == 3

    def test_each_speaker_is_in_every_split(self, utterances):
        for split in utterances.values():
            assert {int(u["speaker"]) for u in split} == {0, 1, 2}

    def test_preparing_again_gives_the_same_set(self, utterances, tmp_path):
        again = prepared(tmp_path)
        for split in SIZES:
            for one, other in zip(
                utterances[split], read(getattr(again, split)), strict=True
            ):
                for key in one:
                    np.testing.assert_array_equal(one[key], other[key])

    @pytest.mark.slow
    def test_every_process_gives_the_same_set(self, tmp_path):
        """For all speakers used here; some variants of eSpeak are not deterministic."""
        script = """
import hashlib
from vqvae_jax.contrib.synthetic_speech import builder, espeak
voices = dict(builder.speakers(109))
synthesizer = espeak.Synthesizer()
text = "Joy found a huge treasure beneath the wooden bridge."
clips = [synthesizer.say(text, voice).audio.tobytes() for voice in voices.values()]
assert len(set(clips)) == 109
print(hashlib.sha256(b"".join(clips)).hexdigest())
"""
        hashes = {
            subprocess.run(
                [sys.executable, "-c", script],
                env={**os.environ, "PYTHONHASHSEED": str(seed)},
                cwd=pathlib.Path(__file__).parents[3],
                capture_output=True,
                check=True,
            ).stdout
            for seed in range(3)
        }
        assert len(hashes) == 1
        assert len(hashes.pop().strip()) == len(hashlib.sha256().hexdigest())

    def test_resampling_scales_the_phones(self, data_dir, dataset):
        slow = prepared(data_dir, sample_rate=8_000)
        one, other = dataset.test[4], slow.test[4]
        assert abs(len(one["audio"]) / 2 - len(other["audio"])) <= 1
        np.testing.assert_allclose(
            other["phones"][:, :2], one["phones"][:, :2] / 2, atol=0.5
        )
        np.testing.assert_array_equal(other["phones"][:, 2], one["phones"][:, 2])

    def test_every_word_has_known_phones(self):
        """An unknown phone would abort a long preparation."""
        synthesizer = espeak.Synthesizer()
        (_, voice), *_ = builder.speakers(1)
        seen = set()
        for text in builder.sentences(100, seed=1):
            _, phones = builder.record(synthesizer, text, voice)
            seen |= {builder.PHONES[phone] for phone in phones[:, 2]}
        assert seen == set(builder.PHONES)


def test_segments_scale_times_and_merge_silences():
    phonemes = (
        Phoneme("h", 264),
        Phoneme("'oU", 2_205),
        Phoneme("_:", 4_410),
        Phoneme("_", 4_500),
        Phoneme(",s", 6_615),
        Phoneme("s", 8_820),
        Phoneme("_", 10_000),
    )
    got = builder.segments(phonemes, length=7_257)
    names = ["SIL", "HH", "OW", "SIL", "S", "S", "SIL"]
    expected = [0, 192, 1_600, 3_200, 4_800, 6_400, 7_256]
    assert got.dtype == np.int32
    assert [builder.PHONES[phone] for phone in got[:, 2]] == names
    assert got[:, 0].tolist() == expected
    assert got[:, 1].tolist() == [*expected[1:], 7_257]
    # A phone that starts at the end is dropped.
    assert len(builder.segments(phonemes, length=7_256)) == 6


def test_unknown_phone_raises():
    with pytest.raises(UserError, match=r"eSpeak NG .* phone 'x'.*espeakng-loader"):
        builder.segments((Phoneme("x", 0),), length=100)


def test_speakers_have_distinct_voices_and_names():
    voices = builder.speakers(109)
    assert len({name for name, _ in voices}) == 109
    assert len({voice for _, voice in voices}) == 109
    assert builder.speakers(7) == voices[:7]
    assert len({voice.variant for _, voice in voices[:36]}) == 36
    with pytest.raises(UserError, match=r"speakers must be in 1 \.\.\. 144, got 145"):
        builder.speakers(145)


def test_without_espeak_the_error_suggests_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(UserError, match=r"pip install 'vqvae_jax\[speech\]'") as caught:
        prepared(tmp_path)
    assert "\n" not in str(caught.value)
