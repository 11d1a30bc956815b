"""A tiny model of clips of a maze, and its finished run, which tests only read."""

from pathlib import Path

import pytest

from vqvae_jax import pipeline


@pytest.fixture(scope="session")
def video_config(make_config, maze_dir) -> dict:
    """A tiny model of clips of a maze."""
    return make_config(
        "maze_video:small",
        {
            "data.data_dir": maze_dir,
            "data.name": "maze/tiny",
            "data.image_size": 24,
            "model.encoder.channels": 8,
            "model.encoder.residual_channels": 8,
            "model.decoder.channels": 8,
            "model.decoder.residual_channels": 8,
            "model.quantizer.dim": 4,
            "model.quantizer.num_codes": 16,
            "training.steps": 4,
            "training.batch_size": 8,
            "training.log_every": 2,
            "training.checkpoint_every": 4,
            "training.init_batches": 1,
            "video.clip_frames": 4,
            "video.given_frames": 2,
            "video.generated_frames": 3,
            "video.context.layers": 2,
            "video.context.channels": 8,
            "video.pixelcnn.layers": 1,
            "video.pixelcnn.channels": 8,
            "video_training.steps": 4,
            "video_training.batch_size": 8,
            "video_training.log_every": 2,
            "video_training.checkpoint_every": 4,
            "samples.num_samples": 3,
            "samples.batch_size": 2,
            "evaluation.batch_size": 8,
        },
    )


@pytest.fixture(scope="session")
def video_run(video_config, tmp_path_factory) -> Path:
    """The workdir of a run through all stages."""
    workdir = tmp_path_factory.mktemp("runs") / "video"
    pipeline.run(video_config, str(workdir))
    return workdir
