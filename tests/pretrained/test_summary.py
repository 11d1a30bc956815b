"""What is said of a model, against numbers counted by hand."""

import numpy as np
import pytest

import vqvae_jax
from vqvae_jax.models.gan import GAN
from vqvae_jax.pretrained.loading import find
from vqvae_jax.pretrained.metadata import About
from vqvae_jax.pretrained.summary import facts


def size(tree):
    import jax

    return sum(np.asarray(x).size for x in jax.tree.leaves(tree))


def test_of_a_run(finished_run):
    found = facts(find(finished_run).about)
    _, params = vqvae_jax.restore(finished_run)
    _, prior_params = vqvae_jax.restore_prior(finished_run)
    encoder, decoder = size(params.encoder), size(params.decoder)
    assert found["kind"] == "vqvae (VQVAE)"
    assert found["images"] == "8x8x1"
    assert found["codes of an image"] == "4x4x1 of K = 16"
    assert found["bits of an image"] == "512"
    assert found["bits of its codes"] == "64, 8 times fewer"
    assert found["parameters"] == (
        f"{encoder + decoder + 64:,} (encoder {encoder:,}, decoder {decoder:,}, "
        "codebook 64)"
    )
    assert found["prior: parameters"] == f"{size(prior_params):,}"
    assert found["prior: classes"] == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9"
    assert "times fewer" in found["... with the learned prior"]


@pytest.mark.slow
def test_of_speech(speech_run):
    found = facts(find(speech_run).about)
    assert found["speakers"] == "ann, bob, cy"
    # K = 16: 4 bits for 128 samples of 16 000.
    assert found["codes"] == "one of K = 16 for 128 samples"
    assert found["bits of a second's codes"] == "500"
    assert found["followed by"] == "sequence_prior"


def test_of_a_model_alone():
    found = facts(About("gan", GAN(image_shape=(8, 8, 1), stages=1)))
    assert found["followed by"] == "nothing"
    assert "codes of an image" not in found
