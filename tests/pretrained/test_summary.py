"""Summaries of models, against numbers counted by hand."""

import jax
import numpy as np

import vqvae_jax
from vqvae_jax.models.gan import GAN
from vqvae_jax.networks.dcgan import Discriminator, Generator
from vqvae_jax.pretrained.card import summary
from vqvae_jax.pretrained.loading import find
from vqvae_jax.pretrained.metadata import Metadata


def size(tree):
    return sum(np.asarray(x).size for x in jax.tree.leaves(tree))


def test_summary_of_a_run(finished_run):
    found = summary(find(finished_run).metadata)
    _, params = vqvae_jax.restore(finished_run)
    _, prior_params = vqvae_jax.restore(finished_run, "prior")
    encoder, decoder = size(params.encoder), size(params.decoder)
    assert found["kind"] == "vqvae (VQVAE)"
    assert found["images"] == "8x8x1"
    assert found["codes of an image"] == "4x4x1 of K = 16"
    assert found["bits of an image"] == "512"
    assert found["bits of its codes"] == "64, 8 times fewer"
    assert found["parameters"] == (
        f"{encoder + decoder + 64:,} (encoder {encoder:,}, decoder {decoder:,}, "
        "quantizer 64)"
    )
    assert found["second stage"] == "prior"
    assert found["prior: parameters"] == f"{size(prior_params):,}"
    assert found["prior: classes"] == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9"
    assert "times fewer" in found["... with the learned prior"]


def test_summary_of_a_model_without_codes():
    gan = GAN(
        image_shape=(8, 8, 1),
        generator=Generator(num_downsamples=1),
        discriminator=Discriminator(num_downsamples=1),
    )
    found = summary(Metadata("gan", gan))
    assert found["second stage"] == "none"
    assert "codes of an image" not in found
