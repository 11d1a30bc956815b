"""Models of speech as portable files."""

import jax
import numpy as np
import pytest

import vqvae_jax
from vqvae_jax.pretrained.card import summary
from vqvae_jax.pretrained.loading import find

pytestmark = pytest.mark.slow


def test_a_file_has_both_models_the_speakers_and_the_rate(speech_run, tmp_path):
    path = vqvae_jax.save_pretrained(speech_run, tmp_path)
    for stage in (None, "sequence_prior"):
        model, params = vqvae_jax.restore(path, stage)
        expected, expected_params = vqvae_jax.restore(speech_run, stage)
        assert model == expected
        jax.tree.map(np.testing.assert_array_equal, params, expected_params)
    assert vqvae_jax.restore(path)[0].speaker_names == ("ann", "bob", "cy")
    assert find(path).metadata.sample_rate == 16_000


def test_the_rate_of_models_without_a_run_can_be_given(speech_run, tmp_path):
    pair = vqvae_jax.restore(speech_run)
    path = vqvae_jax.save_pretrained(pair, tmp_path, sample_rate=8_000)
    assert find(path).metadata.sample_rate == 8_000


def test_summary(speech_run):
    lines = summary(find(speech_run).metadata)
    assert lines["speakers"] == "ann, bob, cy"
    # K = 16: 4 bits for 128 samples at 16 kHz.
    assert lines["codes"] == "one of K = 16 for 128 samples"
    assert lines["bits of a second's codes"] == "500"
    assert lines["second stage"] == "sequence_prior"
