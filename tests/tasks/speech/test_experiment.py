"""Configs of speech: they build an experiment, and every error names its key."""

import functools
import operator
import re

import numpy as np
import pytest

from vqvae_jax.experiment import Experiment
from vqvae_jax.runtime.errors import UserError
from vqvae_jax.tasks.speech.evaluation import utterances_of


@pytest.fixture
def config(make_config):
    return make_config("speech:unconditional_small", {})


def test_the_data_give_the_speakers(config):
    experiment = Experiment.from_config(config)
    assert experiment.data.crop_samples == config["data"]["crop_samples"]
    given = {"speaker_names": ("a", "b")}
    assert experiment.with_given(given).model.num_speakers == 2
    named = Experiment.from_config(config, given=given)
    assert experiment.with_given(given) == named


def test_the_prior_fits_the_codes(config):
    experiment = Experiment.from_config(config)
    assert experiment.second_stage == "sequence_prior"
    metadata = {"num_codes": 7, "class_names": ["a", "b"]}
    prior = experiment.second_models(metadata)["sequence_prior"]
    assert (prior.num_codes, prior.class_names) == (7, ("a", "b"))
    assert prior.latents == 320


def test_utterances_are_padded_to_whole_seconds_of_whole_codes(config):
    config["model"]["encoder"]["downsampling"] = 640
    config["data"]["sample_rate"] = 22_050
    # It is rounded up to one for each of eight devices.
    config["evaluation"]["batch_size"] = 2
    experiment = Experiment.from_config(config)

    class Short:
        lengths = np.array([3, 30_000])

        def __len__(self):
            return 2

        def __getitem__(self, index):
            number = np.int32(0)
            return {
                "audio": np.zeros(self.lengths[index], np.int16),
                "speaker": number,
                "sentence": number,
                "phones": np.zeros((0, 3), np.int32),
            }

    (batch,) = utterances_of(experiment, Short(), phones=True)
    # 22 400 is the next multiple of 640 after a second.
    assert batch["audio"].shape == (8, 44_800)
    assert batch["phones"].shape == (8, 70)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("data.image_size", 8, "is not an option"),
        ("data.crop_samples", 0, "must be >= 1"),
        ("model.image_shape", (8, 8, 1), "is not an option"),
        ("model.speaker_names", ("a",), "is not an option"),
        ("model.encoder.downsampling", 7, "must be a product of 2, 3 and 5"),
        ("model.decoder.skip_channels", 0, "must be >= 1, got 0"),
        ("sequence_prior.latents", 0, "must be >= 1"),
        ("sequence_prior.network.layers", 0, "must be >= 1"),
        ("prior", {}, "is not a section of a speech's config"),
    ],
)
def test_an_error_names_its_key(config, key, value, message):
    *sections, name = key.split(".")
    functools.reduce(operator.getitem, sections, config)[name] = value
    message = f"^{re.escape(key)}.*{re.escape(message)}"
    with pytest.raises(UserError, match=message) as error:
        Experiment.from_config(config)
    assert len(str(error.value).splitlines()) == 1
