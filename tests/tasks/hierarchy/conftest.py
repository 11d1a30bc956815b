"""A tiny second VQ-VAE, and its finished run, which tests only read."""

import shutil
from pathlib import Path

import pytest

from vqvae_jax import pipeline


@pytest.fixture(scope="session")
def hierarchy_config(tiny_config) -> dict:
    """The config `tiny_config` with a tiny second VQ-VAE instead of the prior."""
    config = {k: v for k, v in tiny_config.items() if not k.startswith("prior")}
    network = {"channels": 8, "num_downsamples": 1, "residual_blocks": 0}
    config["hierarchy"] = {
        "quantizer": {
            "num_codebooks": 2,
            "num_codes": 8,
            "dim": 3,
            "codebook_init": "uniform",
        },
        "encoder": network,
        "to_map": {**network, "out_channels": 4},
        "pixelcnn": {"layers": 1, "channels": 8, "kernel_size": 3},
    }
    steps = {"steps": 2, "log_every": 1, "checkpoint_every": 2}
    config["hierarchy_training"] = {**tiny_config["prior_training"], **steps}
    config["samples"] = {"num_samples": 6, "batch_size": 6}
    config["evaluation"] = {**tiny_config["evaluation"], "classify_samples": False}
    return config


@pytest.fixture(scope="session")
def hierarchy_run(finished_run, hierarchy_config, tmp_path_factory) -> Path:
    """The workdir of its run; the VQ-VAE and the codes are those of `finished_run`."""
    workdir = tmp_path_factory.mktemp("runs") / "hierarchy"
    for name in ("codes", "checkpoints/vqvae"):
        shutil.copytree(finished_run / name, workdir / name)
    shutil.copy(finished_run / "metrics.jsonl", workdir)
    pipeline.run(hierarchy_config, str(workdir))
    return workdir
