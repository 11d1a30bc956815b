"""The metadata of a video model, through JSON and back."""

import dataclasses

import numpy as np

from vqvae_jax.models.vqvae import VQVAE
from vqvae_jax.pretrained.metadata import Metadata, from_json, to_json
from vqvae_jax.tasks.video.model import Video


def test_vectors_that_training_starts_from_are_left_out():
    video = Video(
        grid=(4, 4, 1),
        num_codes=8,
        action_names=("left", "right"),
        code_vectors=np.zeros((1, 8, 3), np.float32),
    )
    model = VQVAE(image_shape=(8, 8, 1))
    metadata = Metadata("vqvae", model, "video", {"video": video}, codes_of="ab")
    found = from_json(to_json(metadata))
    assert found.models["video"].code_vectors is None
    assert found.models["video"] == dataclasses.replace(video, code_vectors=None)
    assert found.codes_of == "ab"
