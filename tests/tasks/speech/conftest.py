"""Sounds, a folder of speech, a tiny experiment on it, and its finished run."""

from pathlib import Path

import numpy as np
import pytest

from vqvae_jax import pipeline


@pytest.fixture
def tone():
    """(seconds, rate, hertz) -> float64 samples of a sine of amplitude 0.5."""

    def samples(seconds, rate=16_000, hertz=440.0):
        times = np.arange(round(seconds * rate)) / rate
        return 0.5 * np.sin(2 * np.pi * hertz * times)

    return samples


@pytest.fixture
def write():
    """(path, samples, rate, subtype) -> the path, after writing a sound file to it."""
    soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed")

    def written(path, samples, rate=16_000, subtype=None):
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, samples, rate, subtype=subtype)
        return path

    return written


@pytest.fixture(scope="session")
def speech_dir(tmp_path_factory) -> Path:
    """A folder of speech: 0.2 to 0.3 s of a tone, then of noise, in two phones.

    Each speaker has another pitch.
    """
    soundfile = pytest.importorskip("soundfile", reason="soundfile is not installed")
    root = tmp_path_factory.mktemp("speech")
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("test", 2)):
        for speaker, pitch in (("ann", 300), ("bob", 150), ("cy", 220)):
            folder = root / split / speaker
            folder.mkdir(parents=True)
            for number in range(count):
                length = 3200 + 400 * number + 37
                time = np.arange(length) / 16_000
                middle = length // 2
                wave = np.sin(2 * np.pi * pitch * time)
                wave[middle:] = rng.normal(size=length - middle)
                name = folder / f"{number}"
                soundfile.write(f"{name}.wav", 0.2 * wave, 16_000)
                ends = middle / 16_000, length / 16_000
                name.with_suffix(".tsv").write_text(
                    f"0.0\t{ends[0]:.4f}\tAA\n{ends[0]:.4f}\t{ends[1]:.4f}\tS\n"
                )
    return root


@pytest.fixture(scope="session")
def speech_config(make_config, speech_dir) -> dict:
    """A tiny model of speech and a prior over its codes, on `speech_dir`."""
    return make_config(
        "an4:unconditional_small",
        {
            "data.data_dir": str(speech_dir),
            "data.crop_samples": 512,
            "model.quantizer.num_codes": 16,
            "model.quantizer.dim": 4,
            "model.encoder.channels": 8,
            "model.decoder.layers": 3,
            "model.decoder.channels": 8,
            "model.decoder.skip_channels": 8,
            "training.steps": 4,
            "training.log_every": 2,
            "training.checkpoint_every": 4,
            "training.init_batches": 2,
            "sequence_prior.latents": 20,
            "sequence_prior.network.layers": 2,
            "sequence_prior.network.channels": 8,
            "sequence_prior.network.skip_channels": 8,
            "sequence_prior_training.steps": 4,
            "sequence_prior_training.log_every": 2,
            "sequence_prior_training.checkpoint_every": 4,
            "samples.num_samples": 3,
            "samples.batch_size": 3,
            "evaluation.batch_size": 8,
        },
    )


@pytest.fixture(scope="session")
def speech_run(speech_config, tmp_path_factory) -> Path:
    """The workdir of a run through all stages; tests only read it."""
    workdir = tmp_path_factory.mktemp("runs") / "speech"
    pipeline.run(speech_config, str(workdir))
    return workdir
