"""Metadata of models, to JSON and back."""

import jax
import pytest

from vqvae_jax.models.gan import GAN
from vqvae_jax.models.pixelcnn import PixelModel
from vqvae_jax.models.prior import Prior
from vqvae_jax.models.vae import VAE
from vqvae_jax.models.vqvae import VQVAE
from vqvae_jax.networks.autoencoder import Encoder
from vqvae_jax.networks.dcgan import Discriminator, Generator
from vqvae_jax.pretrained.metadata import Metadata, from_json, metadata_of, to_json
from vqvae_jax.quantizers import VQ
from vqvae_jax.runtime.errors import UserError

IMAGE = {"image_shape": (8, 8, 1)}


@pytest.mark.parametrize(
    ("kind", "model"),
    [
        (
            "vqvae",
            VQVAE(
                **IMAGE,
                quantizer=VQ(num_codes=8, dim=4, num_codebooks=2, beta=0.5),
                encoder=Encoder(channels=16, dtype="bfloat16", remat=True),
            ),
        ),
        ("vae", VAE(**IMAGE, log_variance_range=(-3.0, 2.0))),
        (
            "gan",
            GAN(
                **IMAGE,
                generator=Generator(num_downsamples=1),
                discriminator=Discriminator(num_downsamples=1),
            ),
        ),
        ("pixelcnn", PixelModel(**IMAGE, class_names=("a", "b"))),
    ],
)
def test_models_of_every_kind_survive_a_round_trip(kind, model):
    metadata = Metadata(kind, model, results={"test_psnr_db": 20.5})
    assert from_json(to_json(metadata)) == metadata


def test_a_second_stage_survives_a_round_trip():
    prior = Prior(grid=(2, 2, 1), num_codes=512, class_names=("a", "b"))
    metadata = Metadata("vqvae", VQVAE(**IMAGE), "prior", {"prior": prior}, "ab")
    assert from_json(to_json(metadata)) == metadata


def test_other_objects_raise():
    with pytest.raises(UserError, match=r"expected \(model, params\) or"):
        metadata_of(VQVAE(**IMAGE))
    with pytest.raises(UserError, match=r"one of VQVAE, VAE, .*; got dict"):
        metadata_of({}, VQVAE(**IMAGE))
    prior = Prior(grid=(2, 2, 1), num_codes=512)
    with pytest.raises(UserError, match=r"one of VQVAE, .*; got Prior"):
        metadata_of(prior, jax.numpy.zeros(3))
