"""A tiny model of speech and its prior through all stages, on eSpeak's voices."""

import json

import numpy as np
import pytest
import soundfile

from vqvae_jax import stages
from vqvae_jax.data import espeak
from vqvae_jax.data.speech_dataset import open_speech
from vqvae_jax.data.utterances import utterance_batches
from vqvae_jax.errors import UserError
from vqvae_jax.experiment import Experiment
from vqvae_jax.models.sequence_prior import SequencePrior
from vqvae_jax.models.speech import SpeechVQVAE
from vqvae_jax.workdir import Workdir, restore, restore_second

TINY = {
    "data.name": "speech/tiny",
    "data.crop_samples": 512,
    "model.num_codes": 16,
    "model.dim": 4,
    "model.units": 8,
    "model.layers": 3,
    "model.wavenet_units": 8,
    "model.skip_units": 8,
    "training.steps": 4,
    "training.batch_size": 8,
    "training.log_every": 2,
    "training.checkpoint_every": 4,
    "training.init_batches": 2,
    "sequence_prior.latents": 40,
    "sequence_prior.layers": 2,
    "sequence_prior.units": 8,
    "sequence_prior.skip_units": 8,
    "sequence_prior_training.steps": 4,
    "sequence_prior_training.batch_size": 8,
    "sequence_prior_training.log_every": 2,
    "sequence_prior_training.checkpoint_every": 4,
    "samples.num_samples": 3,
    "samples.batch_size": 3,
    "evaluation.batch_size": 8,
}


def test_stages_and_their_order():
    alone = ["speech", "codes", "samples", "evaluate", "report"]
    assert list(stages.stages_of("speech", None)) == alone
    followed = ["speech", "codes", "sequence_prior", *alone[2:]]
    assert list(stages.stages_of("speech", "sequence_prior")) == followed


@pytest.mark.slow
@pytest.mark.skipif(not espeak.is_available(), reason="espeakng-loader is missing")
class TestRun:
    @pytest.fixture(scope="class")
    @classmethod
    def config(cls, make_config, tmp_path_factory):
        place = {"data.data_dir": str(tmp_path_factory.mktemp("speech"))}
        return make_config("speech:unconditional_small", TINY | place)

    @pytest.fixture(scope="class")
    @classmethod
    def run(cls, config, tmp_path_factory):
        workdir = tmp_path_factory.mktemp("runs") / "speech"
        stages.run(config, str(workdir))
        return Workdir(workdir)

    @pytest.fixture(scope="class")
    @classmethod
    def dataset(cls, run, config):
        return open_speech(Experiment.from_config(config).data)

    def test_models_are_restored_with_their_speakers(self, run, dataset):
        model, params = restore(run.path)
        assert isinstance(model, SpeechVQVAE)
        assert model.speaker_names == dataset.speaker_names
        run.require_same_codebook(params)
        prior, _ = restore_second(run.path, "sequence_prior")
        assert isinstance(prior, SequencePrior)
        assert (prior.num_codes, prior.class_names) == (16, model.speaker_names)

    @pytest.mark.parametrize("split", ["train", "validation", "test"])
    def test_codes_are_those_of_each_utterance_alone(self, run, dataset, split):
        model, params = restore(run.path)
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
        own = results["test_bits_per_sample"]
        for name in ("codes_moved", "codes_shuffled", "other_codes"):
            # Next to nothing is learned in 4 steps; near 8 bits all the same.
            assert 4 < results[f"test_bits_per_sample_{name}"] < 9
        assert 4 < own < 9
        assert results["compression_ratio"] == 128 * 16 / 4
        assert results["phoneme_chance_accuracy"] < 0.5
        assert results["phoneme_accuracy"] > 0
        assert results["speaker_chance_accuracy"] == 1 / 3
        assert results["real_speaker_accuracy"] > 0.5
        assert 0 <= results["converted_equal_codes"] <= 1
        assert 0 < results["prior_bits_per_code"] < 5
        assert results["train_steps"] == results["sequence_prior_train_steps"] == 4

    def test_bits_are_those_of_log_prob(self, run, dataset):
        model, params = restore(run.path)
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

    def test_sounds_are_there_and_in_the_report(self, run, dataset):
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

    def test_it_is_not_done_again(self, run, config, capsys):
        stages.run(config, str(run.path))
        assert "nothing to do" in capsys.readouterr().out

    def test_other_speakers_are_refused(self, run, config):
        with pytest.raises(UserError, match="the speech of 3 speakers"):
            run.keep_speakers(["someone else"])

    def test_a_grid_prior_is_no_prior_of_speech(self, config):
        changed = json.loads(json.dumps(config))
        changed["prior"] = {}
        with pytest.raises(UserError, match="prior is not a section of a speech's"):
            Experiment.from_config(changed)
