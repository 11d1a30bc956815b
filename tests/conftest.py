"""Eight CPU devices, checked shapes, strict rank promotion: set before JAX starts."""

# ruff: noqa: E402

import os
import sys

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=8"
    # Programs here run for milliseconds; optimising them takes most of the time.
    + " --xla_backend_optimization_level=0"
    # On a busy machine a device may wait long for another.
    + " --xla_cpu_collective_call_terminate_timeout_seconds=300"
)

import jaxtyping

_hook = jaxtyping.install_import_hook("vqvae_jax", "beartype.beartype")
_hook.__enter__()

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")

import contextlib
import dataclasses
import importlib.util
import shutil
import socket
import subprocess
import time
from pathlib import Path

import filelock
import hypothesis
import numpy as np
import pytest

ROOT = Path(__file__).parents[1]

# The same examples each time, however busy the machine is.
hypothesis.settings.register_profile(
    "repeatable", derandomize=True, deadline=None, database=None
)
hypothesis.settings.load_profile("repeatable")

# Sizes that train in seconds: what is tested is the path, not the result.
TINY = {
    "model.units": 8,
    "model.residual_units": 8,
    "model.dim": 4,
    "model.num_codes": 16,
    "training.steps": 20,
    "training.log_every": 5,
    "training.checkpoint_every": 10,
    "training.init_batches": 1,
    "prior.layers": 1,
    "prior.units": 8,
    "prior_training.steps": 20,
    "prior_training.log_every": 5,
    "prior_training.checkpoint_every": 10,
    "samples.num_samples": 40,
    "samples.batch_size": 40,
}


def experiment_config(name: str, changes: dict) -> dict:
    """Return the config of experiments/`name`.py[:variant] with keys changed."""
    name, _, variant = name.partition(":")
    path = ROOT / "experiments" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"experiments_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config(variant)
    config.update_from_flattened_dict(changes)
    return config.to_dict()


@contextlib.contextmanager
def start_processes(argv: list, logs: Path, *, devices: int = 2, own=((), ())):
    """Start a program in several processes that find each other, and end them.

    Each has `devices` CPU devices, its own arguments besides and, in `logs`, its files
    0.out, 0.err, 1.out and so on. One process alone is told of no others.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    options = (
        f"--xla_force_host_platform_device_count={devices} "
        "--xla_backend_optimization_level=0"
    )
    env = os.environ | {"XLA_FLAGS": options, "PYTHONPATH": str(ROOT)}
    logs.mkdir()
    with contextlib.ExitStack() as stack:
        processes = []
        for number, arguments in enumerate(own):
            if len(own) > 1:
                arguments = (
                    f"--coordinator={address}",
                    f"--num_processes={len(own)}",
                    f"--process_id={number}",
                    *arguments,
                )
            out, err = (
                stack.enter_context((logs / f"{number}.{name}").open("w"))
                for name in ("out", "err")
            )
            process = subprocess.Popen(
                [sys.executable, *map(str, argv), *map(str, arguments)],
                cwd=ROOT,
                env=env,
                stdout=out,
                stderr=err,
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            processes.append(process)
        yield processes


def run_processes(argv: list, logs: Path, *, timeout: float = 1200, **options) -> list:
    """Run a program in several processes; return the exit code of each."""
    end = time.monotonic() + timeout
    with start_processes(argv, logs, **options) as processes:
        return [each.wait(max(0, end - time.monotonic())) for each in processes]


@pytest.fixture(scope="session", name="start_processes")
def start_processes_fixture():
    """The function that starts a program in several processes, and ends them."""
    return start_processes


@pytest.fixture(scope="session", name="run_processes")
def run_processes_fixture():
    """The function that runs a program in several processes."""
    return run_processes


@pytest.fixture(scope="session")
def tiny_changes() -> dict:
    """Overrides that make any image experiment tiny."""
    return TINY


@pytest.fixture(scope="session")
def make_config():
    """The function that makes the config of an experiment with keys changed."""
    return experiment_config


@pytest.fixture(scope="session")
def digits_dir(tmp_path_factory) -> str:
    """Where the digits are prepared, once for all tests."""
    return str(tmp_path_factory.mktemp("tfds"))


@pytest.fixture(scope="session")
def maze_dir(tmp_path_factory) -> str:
    """Where mazes are prepared, once for all tests."""
    return str(tmp_path_factory.mktemp("mazes"))


@pytest.fixture(scope="session")
def tiny_config(digits_dir) -> dict:
    """The digits experiment, a few steps of small networks."""
    return experiment_config("digits", TINY | {"data.data_dir": digits_dir})


@pytest.fixture(scope="session")
def finished_run(tiny_config, tmp_path_factory) -> Path:
    """The workdir of a tiny digits run through all stages; tests only read it."""
    from vqvae_jax import stages

    place = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        place = place.parent  # Of all workers, who share it.
    workdir = place / "finished_digits"
    with filelock.FileLock(place / "finished_digits.lock"):
        stages.run(tiny_config, str(workdir))
    return workdir


@pytest.fixture(scope="session")
def hierarchy_config(tiny_config) -> dict:
    """A second VQ-VAE instead of the prior of `tiny_config`, as small."""
    config = {k: v for k, v in tiny_config.items() if not k.startswith("prior")}
    config["hierarchy"] = {
        "latents": 2,
        "latent_codes": 8,
        "dim": 3,
        "stages": 1,
        "encoder_units": 8,
        "residual_blocks": 0,
        "map_features": 4,
        "layers": 1,
        "units": 8,
        "kernel_size": 3,
        "codebook_init": "uniform",
    }
    steps = {"steps": 2, "log_every": 1, "checkpoint_every": 2}
    config["hierarchy_training"] = {**tiny_config["prior_training"], **steps}
    config["samples"] = {"num_samples": 6, "batch_size": 6}
    config["evaluation"] = {**tiny_config["evaluation"], "classify_samples": False}
    return config


@pytest.fixture(scope="session")
def hierarchy_run(finished_run, hierarchy_config, tmp_path_factory) -> Path:
    """The workdir of that run; its VQ-VAE and codes are those of `finished_run`."""
    from vqvae_jax import stages

    workdir = tmp_path_factory.mktemp("runs") / "hierarchy"
    for name in ("codes", "checkpoints/vqvae"):
        shutil.copytree(finished_run / name, workdir / name)
    shutil.copy(finished_run / "metrics.jsonl", workdir)
    stages.run(hierarchy_config, str(workdir))
    return workdir


@pytest.fixture(scope="session")
def speech_dir(tmp_path_factory) -> Path:
    """A folder of speech: tones of 0.2 to 0.3 s, a pitch a speaker, two phones each."""
    import soundfile

    folder = tmp_path_factory.mktemp("speech")
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("test", 2)):
        for speaker, pitch in (("ann", 300), ("bob", 150), ("cy", 220)):
            place = folder / split / speaker
            place.mkdir(parents=True)
            for number in range(count):
                length = 3200 + 400 * number + 37
                time = np.arange(length) / 16_000
                middle = length // 2
                wave = np.sin(2 * np.pi * pitch * time)
                wave[middle:] = rng.normal(size=length - middle)
                name = place / f"{number}"
                soundfile.write(f"{name}.wav", 0.2 * wave, 16_000)
                ends = middle / 16_000, length / 16_000
                name.with_suffix(".tsv").write_text(
                    f"0.0\t{ends[0]:.4f}\tAA\n{ends[0]:.4f}\t{ends[1]:.4f}\tS\n"
                )
    return folder


@pytest.fixture(scope="session")
def speech_config(speech_dir) -> dict:
    """A tiny model of speech and its prior over the codes of that folder."""
    return experiment_config(
        "an4:unconditional_small",
        {
            "data.data_dir": str(speech_dir),
            "data.crop_samples": 512,
            "model.num_codes": 16,
            "model.dim": 4,
            "model.units": 8,
            "model.layers": 3,
            "model.wavenet_units": 8,
            "model.skip_units": 8,
            "training.steps": 4,
            "training.log_every": 2,
            "training.checkpoint_every": 4,
            "training.init_batches": 2,
            "sequence_prior.latents": 20,
            "sequence_prior.layers": 2,
            "sequence_prior.units": 8,
            "sequence_prior.skip_units": 8,
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
    """The workdir of that run through all stages; tests only read it."""
    from vqvae_jax import stages

    workdir = tmp_path_factory.mktemp("runs") / "speech"
    stages.run(speech_config, str(workdir))
    return workdir


@pytest.fixture(scope="session")
def video_config(maze_dir) -> dict:
    """A tiny model of clips of a maze."""
    return experiment_config(
        "maze_video:small",
        {
            "data.data_dir": maze_dir,
            "data.name": "maze/tiny",
            "data.image_size": 24,
            "model.units": 8,
            "model.residual_units": 8,
            "model.dim": 4,
            "model.num_codes": 16,
            "training.steps": 4,
            "training.batch_size": 8,
            "training.log_every": 2,
            "training.checkpoint_every": 4,
            "training.init_batches": 1,
            "video.clip_frames": 4,
            "video.given_frames": 2,
            "video.generated_frames": 3,
            "video.context_layers": 2,
            "video.context_units": 8,
            "video.layers": 1,
            "video.units": 8,
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
    """The workdir of that run through all stages; tests only read it."""
    from vqvae_jax import stages

    workdir = tmp_path_factory.mktemp("runs") / "video"
    stages.run(video_config, str(workdir))
    return workdir


@pytest.fixture(scope="session")
def tiny_model():
    """(name, batch_size, **options) -> the smallest model of a kind, params, a batch.

    About a third of the batch is padding, in some places more than in others.
    Parameters are random: `init` would take seconds to compile.
    """
    from tiny_models import Examples, every_model

    def make(name: str, batch_size: int = 4, **options):
        model, shapes = every_model()[name]
        model = dataclasses.replace(model, **options)
        batch = Examples(shapes, count=batch_size)[:]
        batch.setdefault("mask", np.arange(batch_size) % 5 != 2)
        shapes = jax.eval_shape(model.init, jax.random.key(0), batch)
        rng = np.random.default_rng(3)
        params = jax.tree.map(
            lambda x: rng.uniform(-0.5, 0.5, size=x.shape).astype(x.dtype), shapes
        )
        if getattr(params, "codebook", None) is not None:
            counts = rng.uniform(0.1, 2, size=params.codebook.counts.shape)
            codebook = params.codebook._replace(counts=counts.astype("float32"))
            params = params._replace(codebook=codebook)
        return model, jax.tree.map(jax.numpy.asarray, (params, batch))

    return make
