"""Run a tiny model of speech and its prior through all stages; keep it in a file."""

import json
import re
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import soundfile
from run_comparison import assert_same_run, run_in_two_processes

import vqvae_jax
from vqvae_jax import pipeline
from vqvae_jax.experiment import Experiment
from vqvae_jax.pretrained.card import summary
from vqvae_jax.pretrained.loading import find
from vqvae_jax.runtime.errors import UserError
from vqvae_jax.tasks.speech.dataset import open_speech
from vqvae_jax.tasks.speech.evaluation import CONVERSIONS
from vqvae_jax.tasks.speech.model import SpeechVQVAE
from vqvae_jax.tasks.speech.prior import SequencePrior
from vqvae_jax.tasks.speech.stages import (
    choose_utterances,
    speech_stages,
    synthesise_all,
)
from vqvae_jax.tasks.speech.utterances import utterance_batches
from vqvae_jax.workdir import Workdir


def without_prior(config):
    return {k: v for k, v in config.items() if not k.startswith("sequence_prior")}


def test_order_of_stages(speech_config):
    experiment = Experiment.from_config(speech_config)
    stages = ["speech", "codes", "sequence_prior", "samples", "evaluate", "report"]
    assert list(speech_stages(experiment)) == stages
    experiment = Experiment.from_config(without_prior(speech_config))
    stages.remove("sequence_prior")
    assert list(speech_stages(experiment)) == stages


@pytest.mark.slow
class TestRun:
    @pytest.fixture
    def run(self, speech_run):
        return Workdir(speech_run)

    @pytest.fixture
    def dataset(self, speech_config):
        return open_speech(Experiment.from_config(speech_config).data)

    def test_models_are_restored_with_their_speakers(self, run, dataset):
        model, params = run.restore()
        assert isinstance(model, SpeechVQVAE)
        assert model.speaker_names == dataset.speaker_names
        run.require_same_codebook(model, params)
        prior, _ = run.restore("sequence_prior")
        assert isinstance(prior, SequencePrior)
        assert (prior.num_codes, prior.class_names) == (16, model.speaker_names)

    def test_codes_of_another_model_raise_without_a_prior(self, run, tmp_path):
        copy = Workdir(shutil.copytree(run.path, tmp_path / "run"))
        copy.begin(without_prior(copy.read_config()))
        model, params = copy.restore()
        copy.require_same_codebook(model, params)
        metadata = copy.path / "codes" / "test" / "metadata.json"
        copy.write_json(metadata, copy.read_json(metadata) | {"fingerprint": "another"})
        with pytest.raises(UserError, match="belong to another codebook"):
            copy.require_same_codebook(model, params)

    @pytest.mark.parametrize("split", ["train", "validation", "test"])
    def test_codes_equal_those_of_each_utterance_alone(self, run, dataset, split):
        model, params = run.restore()
        codes, source = run.codes(split), getattr(dataset, split)
        assert sorted(int(codes[i]["index"]) for i in range(len(codes))) == list(
            range(len(source))
        )
        for example in (codes[0], codes[len(codes) - 1]):
            utterance = source[int(example["index"])]
            alone = np.asarray(model.encode(params, utterance["audio"][None]))[0]
            assert int(example["length"]) == len(alone)
            np.testing.assert_array_equal(example["codes"][: len(alone), 0], alone)
            assert int(example["speaker"]) == int(utterance["speaker"])
            assert int(example["sentence"]) == int(utterance["sentence"])

    def test_results(self, run):
        results = run.read_json(run.results)
        for name in ("", "_codes_moved", "_codes_shuffled", "_other_codes"):
            # Near 8 bits: 4 steps teach little.
            assert 4 < results[f"test_bits_per_sample{name}"] < 9
        assert results["compression_ratio"] == 128 * 16 / 4
        # A tone and then noise, each half of an utterance: easy even for these codes.
        assert results["phoneme_chance_accuracy"] == pytest.approx(0.5, abs=0.05)
        assert results["phoneme_accuracy"] > 0.6
        assert results["speaker_chance_accuracy"] == 1 / 3
        assert 0 <= results["converted_equal_codes"] <= 1
        assert 0 < results["prior_bits_per_code"] < 5
        assert results["train_steps"] == results["sequence_prior_train_steps"] == 4

    def test_bits_equal_log_prob(self, run, dataset):
        model, params = run.restore()
        nats = samples = 0
        for batch in utterance_batches(dataset.test, batch_size=1, multiple_of=128):
            audio, mask = batch["audio"], batch["mask"]
            codes = model.encode(params, audio, mask)
            nats -= float(
                model.log_prob(
                    params, audio, codes, speakers=batch["speaker"], mask=mask
                )[0]
            )
            samples += mask.sum()
        found = run.read_json(run.results)["test_bits_per_sample"]
        assert found == pytest.approx(nats / samples / np.log(2), rel=1e-4)

    def test_samples_match_their_schema(self, run):
        arrays = run.read_samples(CONVERSIONS)
        assert arrays["audio"].shape[:2] == (len(arrays["index"]), 2)

    def test_sounds_are_written_and_in_the_report(self, run, dataset):
        names = sorted(path.name for path in run.pictures.glob("*.wav"))
        assert len(names) == 3 * 3 + 3
        with np.load(run.samples) as samples:
            first = int(samples["index"][0])
        audio, rate = soundfile.read(run.pictures / "0000_original.wav", dtype="int16")
        np.testing.assert_array_equal(audio, dataset.test[first]["audio"])
        assert rate == 16_000
        page = run.report.read_text()
        assert page.count("<audio") == 3 * 3 + 3
        assert "Phonemes from codes" in page

    def test_conversion_of_the_documentation_runs(self, run, tmp_path, monkeypatch):
        page = Path(__file__).parents[3] / "docs" / "speech.md"
        text = page.read_text(encoding="utf-8")
        (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        (tmp_path / "runs").mkdir()
        (tmp_path / "runs" / "speech-small").symlink_to(run.path)
        monkeypatch.chdir(tmp_path)
        namespace = {}
        exec(compile(block, str(page), "exec"), namespace)
        (converted,) = namespace["converted"]
        length = len(namespace["audio"])
        assert length <= len(converted) < length + run.experiment().model.downsampling

    def test_a_finished_run_is_not_repeated(self, run, speech_config, capsys):
        pipeline.run(speech_config, str(run.path))
        assert "nothing to do" in capsys.readouterr().out

    def test_other_speakers_raise(self, run):
        with pytest.raises(UserError, match="was trained on data with 3 speaker_names"):
            run.keep_given({"speaker_names": ["someone else"]})

    def test_a_prior_of_grids_raises(self, speech_config):
        changed = json.loads(json.dumps(speech_config))
        changed["prior"] = {}
        with pytest.raises(UserError, match="prior is not a section of a speech's"):
            Experiment.from_config(changed)


# (speaker, sentence, index): speakers 0 and 1 share sentences 5 and 6, speaker 2 shares
# none, and speaker -1 is not in train. They are not in the order of the split.
ROWS = [(0, 5, 3), (1, 6, 0), (2, 7, 1), (1, 5, 2), (-1, 5, 4), (0, 6, 5)]


def codes_of(rows):
    return [
        {"speaker": np.array(s), "sentence": np.array(t), "index": np.array(i)}
        for s, t, i in rows
    ]


def test_utterances_of_shared_sentences_are_converted_to_the_other_speaker():
    chosen = choose_utterances(codes_of(ROWS), 10, num_speakers=3)
    # In the order of the split.
    assert chosen.rows.tolist() == [1, 3, 0, 5]
    assert chosen.voices.tolist() == [[1, 0], [1, 0], [0, 1], [0, 1]]


def test_fewer_are_spread_over_the_split():
    chosen = choose_utterances(codes_of(ROWS), 2, num_speakers=3)
    assert chosen.rows.tolist() == [1, 5]


def test_without_shared_sentences_any_other_speaker_is_the_voice():
    rows = [(0, 1, 0), (1, 2, 1), (2, 3, 2)]
    chosen = choose_utterances(codes_of(rows), 3, num_speakers=3)
    assert chosen.voices[:, 0].tolist() == [0, 1, 2]
    assert (chosen.voices[:, 0] != chosen.voices[:, 1]).all()


def test_speakers_unknown_to_train_get_two_voices_of_train():
    chosen = choose_utterances(
        codes_of([(-1, -1, n) for n in range(4)]), 4, num_speakers=3
    )
    assert chosen.voices.min() >= 0
    assert (chosen.voices[:, 0] != chosen.voices[:, 1]).all()


def test_a_single_speaker_is_both_voices():
    chosen = choose_utterances(codes_of([(0, 1, 0)]), 4, num_speakers=1)
    assert chosen.voices.tolist() == [[0, 0]]


@pytest.mark.parametrize("batch_size", [2, 5, 9])
def test_each_utterance_is_synthesised_once_in_batches_of_one_size(batch_size):
    codes = np.arange(15).reshape(5, 3)
    lengths, speakers = np.arange(5) + 1, np.arange(5) * 7
    sizes = []

    def synthesise(key, codes, lengths, speakers):
        sizes.append(len(codes))
        return np.stack([codes[:, 0], lengths, speakers], axis=1).astype(np.int16)

    audio, _ = synthesise_all(
        synthesise, jax.random.key(0), codes, lengths, speakers, batch_size=batch_size
    )
    np.testing.assert_array_equal(audio, np.stack([codes[:, 0], lengths, speakers], 1))
    assert set(sizes) == {min(batch_size, 5)}


@pytest.mark.slow
def test_two_processes_equal_one(speech_config, speech_run, run_processes, tmp_path):
    run_in_two_processes(run_processes, speech_config, tmp_path / "run")
    assert_same_run(tmp_path / "run", speech_run)


@pytest.mark.slow
def test_a_file_has_both_models_the_speakers_and_the_rate(speech_run, tmp_path):
    path = vqvae_jax.save_pretrained(speech_run, tmp_path)
    for stage in (None, "sequence_prior"):
        model, params = vqvae_jax.restore(path, stage)
        expected, expected_params = vqvae_jax.restore(speech_run, stage)
        assert model == expected
        jax.tree.map(np.testing.assert_array_equal, params, expected_params)
    assert vqvae_jax.restore(path)[0].speaker_names == ("ann", "bob", "cy")
    assert find(path).metadata.sample_rate == 16_000


@pytest.mark.slow
def test_the_rate_of_models_without_a_run_can_be_given(speech_run, tmp_path):
    pair = vqvae_jax.restore(speech_run)
    path = vqvae_jax.save_pretrained(pair, tmp_path, sample_rate=8_000)
    assert find(path).metadata.sample_rate == 8_000


@pytest.mark.slow
def test_summary(speech_run):
    lines = summary(find(speech_run).metadata)
    assert lines["speakers"] == "ann, bob, cy"
    # K = 16: 4 bits for 128 samples at 16 kHz.
    assert lines["codes"] == "one of K = 16 for 128 samples"
    assert lines["bits of a second's codes"] == "500"
    assert lines["second stage"] == "sequence_prior"


def test_a_model_of_speech_has_the_speakers_of_its_run(make_config, tmp_path):
    workdir = Workdir(tmp_path)
    workdir.begin(make_config("speech:small", {}))
    with pytest.raises(UserError, match=r"given\.json is missing or damaged"):
        workdir.experiment()
    workdir.keep_given({"speaker_names": ["ann", "bob"]})
    assert workdir.experiment().model.speaker_names == ("ann", "bob")
    workdir.given.write_text('{"speaker_names": [3]}')
    with pytest.raises(UserError, match=r"given\.json is damaged: speaker_names is"):
        workdir.experiment()
