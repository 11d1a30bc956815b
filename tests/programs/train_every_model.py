"""Train the smallest model of each kind for a few steps on random examples.

    python tests/programs/train_every_model.py WORKDIR [--steps N] [--models a,b]

With --coordinator and the rest it runs as one of several processes. It writes a
checkpoint to WORKDIR/checkpoints/MODEL every second step.
"""

import argparse
from pathlib import Path

import jax
from tiny_models import Examples, every_model

from vqvae_jax.data.batches import TrainBatches, eval_batches
from vqvae_jax.runtime import distributed
from vqvae_jax.training.config import TrainingConfig
from vqvae_jax.training.loop import Run, fit

BATCH_SIZE, INIT_BATCHES = 8, 2


def train(name, model, workdir, steps):
    """Train a model as a stage does."""
    config = TrainingConfig(
        steps=steps,
        batch_size=BATCH_SIZE,
        learning_rate=1e-3,
        log_every=2,
        checkpoint_every=2,
    )
    source = Examples(model.init_batch())
    share = {
        "batch_size": BATCH_SIZE,
        "process_index": jax.process_index(),
        "process_count": jax.process_count(),
    }
    first = next(TrainBatches(source, batch_size=INIT_BATCHES * BATCH_SIZE, seed=1))
    run = Run(
        stage=name,
        workdir=workdir,
        seed=3,
        train=TrainBatches(source, seed=1, **share),
        validation=lambda: eval_batches(source, **share),
        init_batch=jax.tree.map(distributed.own_rows, first),
    )
    fit(model, config, run)
    distributed.barrier(name)


def main():
    """Train the models named on the command line."""
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
        train(name, models[name], given.workdir, given.steps)


if __name__ == "__main__":
    main()
