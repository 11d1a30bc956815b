"""Bits given codes of other utterances, phonemes and rates."""

import dataclasses
import math

import jax
import numpy as np
import pytest

from vqvae_jax.data.codes import write_codes
from vqvae_jax.experiment import Experiment
from vqvae_jax.tasks.speech import evaluation, phones
from vqvae_jax.tasks.speech.dataset import open_speech
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
