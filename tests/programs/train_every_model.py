"""Train every model of the project, tiny, for a few steps on made-up data.

    python tests/programs/train_every_model.py WORKDIR [--steps N] [--models a,b]

With --coordinator and so on as one of several processes. Checkpoints are in
WORKDIR/checkpoints/MODEL, of every second step.
"""

import argparse
from pathlib import Path

import jax
import numpy as np

from vqvae_jax import distributed
from vqvae_jax.data.pipeline import eval_batches, train_batches
from vqvae_jax.models.first import KINDS
from vqvae_jax.models.second import SECOND_STAGES, models_of
from vqvae_jax.training.config import TrainingConfig
from vqvae_jax.training.loop import Run, fit

BATCH_SIZE, INIT_BATCHES = 8, 2
NUM_CODES, NUM_LABELS = 6, 2

_AUTOENCODER = {
    "image_shape": (8, 8, 1),
    "stages": 1,
    "units": 8,
    "residual_blocks": 1,
    "residual_units": 4,
    "likelihood": "gaussian",
}
_CODEBOOK = {"codebook_update": "ema", "ema_decay": 0.9, "restart_below": 0.7}
_PIXELCNN = {"layers": 1, "units": 8, "kernel_size": 3, "dropout": 0.2}
_SEQUENCES = {"stacks": 1, "skip_units": 8}
# Everything that draws at random or looks at other examples of the batch is on.
FIRST = {
    "vqvae": {**_AUTOENCODER, **_CODEBOOK, "num_codes": NUM_CODES, "dim": 4},
    "vae": {**_AUTOENCODER, "latent_dim": 4},
    "vimco": {**_AUTOENCODER, "num_codes": 4, "dim": 3, "num_samples": 3},
    "pixelcnn": {"image_shape": (8, 8, 1), **_PIXELCNN},
    "gan": {
        "image_shape": (8, 8, 1),
        "latent_dim": 4,
        "units": 6,
        "stages": 1,
        "r1": 3.0,
    },
    "speech": {
        "speaker_names": ("ann", "bob"),
        **_CODEBOOK,
        **_SEQUENCES,
        "num_codes": NUM_CODES,
        "dim": 3,
        "downsampling": 4,
        "units": 8,
        "residual_blocks": 1,
        "layers": 3,
        "wavenet_units": 8,
        "jitter": 0.2,
    },
}
SECOND = {
    "prior": {**_PIXELCNN, "label_dropout": 0.2},
    "hierarchy": {
        **_CODEBOOK,
        "latents": 2,
        "latent_codes": 4,
        "dim": 3,
        "stages": 1,
        "encoder_units": 8,
        "residual_blocks": 0,
        "map_features": 4,
        "layers": 1,
        "units": 8,
        "kernel_size": 3,
    },
    "video": {
        **_PIXELCNN,
        "clip_frames": 3,
        "given_frames": 1,
        "generated_frames": 2,
        "context_layers": 1,
        "context_units": 8,
    },
    "sequence_prior": {
        **_SEQUENCES,
        "conditional": True,
        "latents": 12,
        "layers": 2,
        "units": 8,
        "dropout": 0.2,
    },
}
FACTS = {
    "grid": (4, 4, 1),
    "num_codes": NUM_CODES,
    "class_names": ("a", "b"),
    "action_names": ("left", "right"),
}


class Examples:
    """Random examples, all different, of the shapes `[1, ...]` of a batch."""

    def __init__(self, shapes, count=23):
        rng = np.random.default_rng(0)
        self._arrays = {
            name: self._draw(rng, name, (count, *shape.shape[1:]), shape.dtype)
            for name, shape in shapes.items()
            # One mask for an example the batches add.
            if name != "mask" or len(shape.shape) > 1
        }
        self._count = count

    @staticmethod
    def _draw(rng, name, shape, dtype):
        if dtype == np.uint8:
            return rng.integers(0, 256, shape).astype(dtype)
        if dtype == np.int16:
            return rng.normal(0, 3000, shape).astype(dtype)
        if name == "mask":
            lengths = rng.integers(shape[1] // 2, shape[1] + 1, (shape[0], 1))
            return np.arange(shape[1]) < lengths
        values = NUM_CODES if name == "codes" else NUM_LABELS
        return rng.integers(0, values, shape).astype(dtype)

    def __len__(self):
        return self._count

    def __getitem__(self, index):
        return {name: array[index] for name, array in self._arrays.items()}


def every_model():
    """Return name -> (model, shapes of its batch)."""
    models = {}
    for kind, options in FIRST.items():
        model = KINDS[kind].model(**options)
        models[kind] = model, KINDS[kind].batch(model)
    for second, options in SECOND.items():
        for stage, model in models_of(second, options, FACTS).items():
            models[stage] = model, SECOND_STAGES[second].batch(model)
    return models


def train(name, model, shapes, workdir, steps):
    """Train one model as a stage does."""
    config = TrainingConfig(
        steps=steps,
        batch_size=BATCH_SIZE,
        learning_rate=1e-3,
        log_every=2,
        checkpoint_every=2,
    )
    source = Examples(shapes)
    share = {
        "batch_size": BATCH_SIZE,
        "process_index": jax.process_index(),
        "process_count": jax.process_count(),
    }
    first = next(train_batches(source, batch_size=INIT_BATCHES * BATCH_SIZE, seed=1))
    run = Run(
        stage=name,
        workdir=workdir,
        seed=3,
        train=train_batches(source, seed=1, **share),
        validation=lambda: eval_batches(source, **share),
        init_batch=jax.tree.map(distributed.own_rows, first),
    )
    fit(model, config, run)
    distributed.barrier(name)


def main():
    """Train the models of the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("workdir", type=Path)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--models")
    parser.add_argument("--coordinator")
    parser.add_argument("--num_processes", type=int)
    parser.add_argument("--process_id", type=int)
    given = parser.parse_args()
    if given.coordinator is not None:
        distributed.start(
            coordinator=given.coordinator,
            num_processes=given.num_processes,
            process_id=given.process_id,
        )
    models = every_model()
    for name in given.models.split(",") if given.models else models:
        train(name, *models[name], given.workdir, given.steps)


if __name__ == "__main__":
    main()
