"""What a model is, through JSON and back."""

import dataclasses

import jax
import numpy as np
import pytest

from vqvae_jax.models.gan import GAN
from vqvae_jax.models.pixelcnn import PixelModel
from vqvae_jax.models.prior import Prior
from vqvae_jax.models.vae import VAE
from vqvae_jax.models.vqvae import VQVAE
from vqvae_jax.pretrained.metadata import (
    About,
    about_models,
    from_json,
    to_json,
)
from vqvae_jax.runtime.errors import UserError
from vqvae_jax.tasks.video.model import Video

IMAGE = {"image_shape": (8, 8, 1)}


@pytest.mark.parametrize(
    ("kind", "model"),
    [
        ("vqvae", VQVAE(**IMAGE, num_codebooks=2, beta=0.5)),
        ("vae", VAE(**IMAGE, log_variance_range=(-3.0, 2.0))),
        ("gan", GAN(**IMAGE, stages=1)),
        ("pixelcnn", PixelModel(**IMAGE, class_names=("a", "b"))),
    ],
)
def test_models_of_every_kind(kind, model):
    about = About(kind, model, results={"test_psnr_db": 20.5})
    assert from_json(to_json(about)) == about


def test_arrays_that_training_starts_from_are_left_out():
    video = Video(
        grid=(4, 4, 1),
        num_codes=8,
        action_names=("left", "right"),
        code_vectors=np.zeros((1, 8, 3), np.float32),
    )
    about = About("vqvae", VQVAE(**IMAGE), "video", {"video": video}, codes_of="ab")
    found = from_json(to_json(about))
    assert found.models["video"].code_vectors is None
    assert found.models["video"] == dataclasses.replace(video, code_vectors=None)
    assert found.codes_of == "ab"


def test_things_that_are_no_models():
    with pytest.raises(UserError, match=r"expected \(model, params\) or"):
        about_models(VQVAE(**IMAGE))
    with pytest.raises(UserError, match=r"one of VQVAE, VAE, .*; got dict"):
        about_models({}, VQVAE(**IMAGE))
    prior = Prior(grid=(2, 2, 1), num_codes=512)
    with pytest.raises(UserError, match=r"one of VQVAE, .*; got Prior"):
        about_models(prior, jax.numpy.zeros(3))
