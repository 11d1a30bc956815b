"""Bits given other codes, phonemes, rates, and conversions of synthetic voices."""

import dataclasses
import math

import jax
import numpy as np
import pytest

from vqvae_jax.data.codes import write_codes
from vqvae_jax.experiment import Experiment
from vqvae_jax.tasks.speech import evaluation, phones, voices
from vqvae_jax.tasks.speech.dataset import SpeechDataset, open_speech
from vqvae_jax.tasks.speech.evaluation import (
    codes_of_another_sentence,
    codes_of_another_utterance,
    fraction_of_equal_codes,
    shuffle_in_time,
)
from vqvae_jax.workdir import Workdir


@pytest.fixture(scope="module")
def dataset(speech_config):
    return open_speech(Experiment.from_config(speech_config).data)


@pytest.fixture(scope="module")
def experiment(speech_config, dataset):
    experiment = Experiment.from_config(speech_config)
    return experiment.with_given(dataset.given)


@pytest.fixture(scope="module")
def params(experiment):
    model = experiment.model
    shapes = jax.eval_shape(model.init, jax.random.key(0), model.init_batch())
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda x: 0.5 * rng.normal(size=x.shape).astype(x.dtype), shapes
    )


class Utterances(list):
    @property
    def lengths(self):
        return np.array([len(utterance["audio"]) for utterance in self])


def bits_given_codes_of(others, model, params, utterances):
    """Bits per sample, one utterance at a time.

    The utterance of rank i by length is decoded from the codes of the one of rank
    `others[i]`.
    """
    order = np.argsort(utterances.lengths, kind="stable").tolist()
    encode, log_prob = jax.jit(model.encode), jax.jit(model.log_prob)
    codes = [np.asarray(encode(params, utterances[i]["audio"][None]))[0] for i in order]
    nats = 0.0
    for replaced, other, i in zip(codes, others, order, strict=True):
        given = np.resize(codes[other], len(replaced))
        speaker = utterances[i]["speaker"][None]
        audio = utterances[i]["audio"][None]
        nats -= float(log_prob(params, audio, given[None], speakers=speaker)[0])
    return nats / sum(utterances.lengths) / math.log(2)


def test_other_codes_are_those_of_the_next_utterance(experiment, params, dataset):
    model, test = experiment.model, dataset.test
    found = evaluation._code_ablation(model, params, experiment, test)
    following = [*range(1, len(test)), 0]
    expected = bits_given_codes_of(following, model, params, test)
    assert found["test_bits_per_sample_other_codes"] == pytest.approx(
        expected, rel=1e-4
    )
    assert found["test_bits_per_sample_codes_shuffled"] != pytest.approx(expected)


def test_a_batch_of_one_utterance_gets_codes_of_the_batch_before(
    experiment, params, dataset
):
    """The ninth and longest utterance gets the codes of the eighth."""
    nine = Utterances([dataset.train[i] for i in range(9)])
    in_eights = dataclasses.replace(
        experiment,
        evaluation=dataclasses.replace(experiment.evaluation, batch_size=8),
    )
    found = evaluation._code_ablation(experiment.model, params, in_eights, nine)
    others = [1, 2, 3, 4, 5, 6, 7, 0, 7]
    expected = bits_given_codes_of(others, experiment.model, params, nine)
    assert found["test_bits_per_sample_other_codes"] == pytest.approx(
        expected, rel=1e-4
    )


def test_phonemes_are_not_measured_without_phones_of_test(
    experiment, dataset, tmp_path
):
    """Phones of train alone give a warning, and no figures."""
    workdir, model = Workdir(tmp_path), experiment.model
    for split in ("train", "test"):
        lengths = model.num_latents(getattr(dataset, split).lengths)
        columns = {"index": np.arange(len(lengths)), "length": lengths}
        write_codes(
            workdir.codes_directory(split),
            batches=[(np.zeros((len(lengths), max(lengths), 1), np.int32), columns)],
            num_codes=model.num_codes,
            class_names=[],
            fingerprint="0",
        )
    measured, confusion = evaluation._phoneme_results(
        workdir, experiment, dataset, model
    )
    assert confusion.sum() == measured["phoneme_frames"] > 0
    assert "phoneme_accuracy_without_silence" not in measured
    # The second of both phones is silence.
    with_silence = dataset._replace(phone_names=("AA", "SIL"))
    measured, confusion = evaluation._phoneme_results(
        workdir, experiment, with_silence, model
    )
    assert measured["phoneme_frames_without_silence"] == confusion[0].sum()
    assert 0 < confusion[0].sum() < measured["phoneme_frames"]
    for name in ("accuracy", "chance_accuracy"):
        assert measured[f"phoneme_{name}_without_silence"] == 1
    without_phones = [
        {**dataset.test[i], "phones": phones.none()} for i in range(len(lengths))
    ]
    partly_labelled = dataset._replace(test=without_phones)
    with pytest.warns(
        UserWarning, match="not measured: no test frame has a known phone"
    ):
        assert evaluation._phoneme_results(
            workdir, experiment, partly_labelled, model
        ) == ({}, None)


def test_rates(experiment, dataset):
    """16 bits at 16 kHz, and a code of 4 bits for 128 samples."""
    assert evaluation._rates(experiment.model, dataset) == {
        "audio_bits_per_second": 256_000,
        "code_bits_per_second": 500,
        "compression_ratio": 512,
    }


def test_frames_pair_each_code_with_the_phone_at_its_middle(dataset, tmp_path):
    """For codes in another order than the utterances; padding is dropped."""
    frame, indices = 100, [3, 0]
    lengths = [-(-int(dataset.test.lengths[i]) // frame) for i in indices]
    codes = np.zeros((2, max(lengths), 1), np.int32)
    codes[:, :, 0] = np.arange(max(lengths))
    columns = {"index": np.array(indices), "length": np.array(lengths)}
    workdir = Workdir(tmp_path)
    write_codes(
        workdir.codes_directory("test"),
        batches=[(codes, columns)],
        num_codes=100,
        class_names=[],
        fingerprint="0",
    )
    frames = list(evaluation._frames(workdir, dataset, "test", frame))
    for pairs, index, length in zip(frames, indices, lengths, strict=True):
        np.testing.assert_array_equal(pairs.codes, np.arange(length))
        phones = dataset.test[index]["phones"]
        for number, phone in enumerate(pairs.phones.tolist()):
            middle = number * frame + frame // 2
            found = [int(p) for start, end, p in phones if start <= middle < end]
            assert phone == (found[0] if found else -1)


SOME_CODES = np.array([[1, 2, 3, 4, 5, 0], [7, 8, 9, 0, 0, 0], [6, 6, 6, 6, 6, 6]])
SOME_LENGTHS = np.array([5, 3, 0])


def test_shuffle_in_time_permutes_codes_and_keeps_padding():
    shuffled = shuffle_in_time(SOME_CODES, SOME_LENGTHS, np.random.default_rng(0))
    assert sorted(shuffled[0, :5]) == [1, 2, 3, 4, 5]
    assert sorted(shuffled[1, :3]) == [7, 8, 9]
    np.testing.assert_array_equal(shuffled[0, 5:], [0])
    np.testing.assert_array_equal(shuffled[2], SOME_CODES[2])
    assert (shuffled[:2] != SOME_CODES[:2]).any()


def test_shuffle_in_time_gives_every_order():
    generator = np.random.default_rng(0)
    orders = {
        tuple(shuffle_in_time(SOME_CODES[1:2], SOME_LENGTHS[1:2], generator)[0, :3])
        for _ in range(200)
    }
    assert len(orders) == 6


def test_codes_of_another_utterance_are_repeated_or_cut_to_length():
    replaced = codes_of_another_utterance(SOME_CODES, SOME_LENGTHS)
    np.testing.assert_array_equal(replaced[0], [7, 8, 9, 7, 8, 0])
    np.testing.assert_array_equal(replaced[1], [1, 2, 3, 0, 0, 0])
    # A padding row is unchanged and not used as a source.
    np.testing.assert_array_equal(replaced[2], SOME_CODES[2])


def test_fraction_of_equal_codes_ignores_padding():
    others = SOME_CODES.copy()
    others[0, :2] = 0
    others[:, 5] = 9
    assert fraction_of_equal_codes(SOME_CODES, others, SOME_LENGTHS) == 6 / 8


def test_single_utterance_gets_the_codes_of_an_earlier_one():
    """A last batch of one must not be evaluated with its original codes."""
    single, length = SOME_CODES[:1], SOME_LENGTHS[:1]
    replaced = codes_of_another_utterance(single, length, before=np.array([7, 8]))
    np.testing.assert_array_equal(replaced, [[7, 8, 7, 8, 7, 0]])
    assert codes_of_another_utterance(single, length) is None
    # `before` is ignored if the batch has another utterance.
    np.testing.assert_array_equal(
        codes_of_another_utterance(SOME_CODES, SOME_LENGTHS, before=np.array([1])),
        codes_of_another_utterance(SOME_CODES, SOME_LENGTHS),
    )


def test_codes_of_another_sentence_are_those_of_the_next_different_one():
    codes = np.array([[1, 1, 0], [2, 2, 2], [3, 0, 0], [4, 5, 0]])
    lengths = np.array([2, 3, 1, 2])
    sentences = np.array([8, 8, 9, -1])
    codes_of_others, replaced = codes_of_another_sentence(codes, lengths, sentences)
    assert replaced.all()
    np.testing.assert_array_equal(
        codes_of_others, [[3, 3, 0], [3, 3, 3], [4, 0, 0], [1, 1, 0]]
    )
    codes_of_others, replaced = codes_of_another_sentence(
        codes[:3], lengths[:3], np.array([8, 8, 8])
    )
    assert not replaced.any()
    np.testing.assert_array_equal(codes_of_others, codes[:3])
    # Two unknown sentences count as different.
    _, replaced = codes_of_another_sentence(codes[:2], lengths[:2], np.array([-1, -1]))
    assert replaced.all()


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
    found = evaluation._distortions(
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
    found = evaluation._distortions(
        [unknown, TEST[1]],
        [TEST[0]["audio"], TEST[3]["audio"]],
        np.array([1, 1]),
        DATASET,
        CODES("test"),
    )
    assert found["converted_to_target_mcd_db"] == 0
    assert not evaluation._distortions(
        [unknown], [TEST[0]["audio"]], np.array([1]), DATASET, CODES("test")
    )


def test_classifier_recognises_the_converted_voices():
    samples = {
        "voices": np.array([[0, 1], [1, 2], [2, 0]]),
        "speakers": np.array([0, 1, -1]),
    }
    same_voice = [speak(0, 5), speak(1, 5), speak(0, 6)]
    converted = [speak(1, 5), speak(2, 5), speak(0, 5)]
    found = evaluation._speaker_accuracies(
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
    found = evaluation._speaker_accuracies(
        samples, same_voice, unchanged, DATASET, CODES
    )
    assert found["converted_speaker_accuracy"] == 0
    assert found["converted_speaker_accuracy_in_noise"] == 0


def test_real_voices_are_those_of_validation():
    """Whose speakers are mislabelled here, so that none is named; train's would be."""
    mislabelled = Listed(
        {**utterance(s, 5, 9), "speaker": np.int32((s + 1) % 3)} for s in (0, 1, 2)
    )
    by_split = {"train": codes_of(TRAIN), "validation": codes_of(mislabelled)}
    found = evaluation._speaker_accuracies(
        {"voices": np.array([[0, 1]]), "speakers": np.array([0])},
        [speak(0, 5)],
        [speak(1, 5)],
        DATASET._replace(validation=mislabelled),
        by_split.__getitem__,
    )
    assert found["real_speaker_accuracy"] == 0
    assert found["real_speaker_accuracy_in_noise"] == 0
    assert found["converted_speaker_accuracy"] == 1


def test_single_speaker_has_no_speaker_accuracies():
    dataset = DATASET._replace(speaker_names=("a",))
    assert evaluation._speaker_accuracies({}, [], [], dataset, CODES) == {}


def test_utterances_per_known_speaker_are_limited():
    source = Listed([*TRAIN, utterance(-1, 5)])
    clips, speakers = evaluation._utterances_per_speaker(source, codes_of(source), 2)
    assert speakers == [0, 0, 1, 1, 2, 2]
    np.testing.assert_array_equal(clips[1], TRAIN[1]["audio"])


def test_only_selected_recordings_are_read():
    """Decoding the tens of thousands of recordings of a corpus would be slow."""
    read = []

    class Counted(Listed):
        def __getitem__(self, index):
            read.append(index)
            return super().__getitem__(index)

    evaluation._utterances_per_speaker(Counted(TRAIN), codes_of(TRAIN), 1)
    # The first of each speaker.
    assert read == [0, 2, 4]
