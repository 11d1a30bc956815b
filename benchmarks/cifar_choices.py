"""What each choice brings on CIFAR-10: bits/dim of short runs that differ in one key.

    python -m benchmarks.cifar_choices --data_dir DIR --out DIR

Each row trains `experiments/cifar.py:small` with the row's changes and the same number
of steps, and evaluates the test split. A second call skips finished runs.
"""

import argparse
import importlib
import json
from pathlib import Path

import numpy as np

from vqvae_jax import pipeline
from vqvae_jax.cli.train import import_experiments
from vqvae_jax.data.dataset import open_dataset
from vqvae_jax.data.source import Subset
from vqvae_jax.experiment import Experiment
from vqvae_jax.pipeline.evaluate import evaluate_on
from vqvae_jax.workdir import Workdir

BOTH = ("model.encoder", "model.decoder")
ROWS = {
    "base": {},
    "beta = 4, as a sum over D": {"model.quantizer.beta": 4.0},
    "beta = 1": {"model.quantizer.beta": 1.0},
    "beta = 0.06": {"model.quantizer.beta": 0.06},
    "a layer at full resolution": {"model.decoder.full_resolution_layers": 1},
    "two layers at full resolution": {"model.decoder.full_resolution_layers": 2},
    "Gaussian": {"model.likelihood": "gaussian"},
    "logistics, channels independent": {"model.likelihood": "logistic_mixture"},
    "softmax": {"model.likelihood": "categorical"},
    "random flips": {"data.random_flip": True},
    "batch 64, half the steps": {"training.batch_size": 64},
    "learning rate 5e-4": {"training.learning_rate": 5e-4},
    "learning rate 2e-3": {"training.learning_rate": 2e-3},
    "RMS norm": {f"{network}.norm": "rms" for network in BOTH},
    "D = 4": {"model.quantizer.dim": 4},
    "D = 8": {"model.quantizer.dim": 8},
    "D = 32": {"model.quantizer.dim": 32},
    "codebook loss": {"model.quantizer.codebook_update": "loss"},
    "no restarts": {"model.quantizer.dead_code_threshold": 0.0},
    "EMA decay 0.99": {"model.quantizer.ema_decay": 0.99},
    "the paper's quantizer and Adam": {
        "model.quantizer.codebook_update": "loss",
        "model.quantizer.dead_code_threshold": 0.0,
        "model.quantizer.dim": 32,
        "training.learning_rate": 2e-4,
        "training.schedule": "constant",
    },
}
IMAGES = 2000


def measure(changes: dict, workdir: Path, *, steps: int, seed: int) -> dict:
    """Train a run, or find it finished; return its results on test images."""
    done = workdir / "test.json"
    if done.exists():
        return json.loads(done.read_text())
    import_experiments()
    config = importlib.import_module("vqvae_jax.experiments.cifar").get_config("small")
    steps = steps * config.training.batch_size
    config.update_from_flattened_dict(changes)
    config.seed = seed
    config.training.steps = steps // config.training.batch_size
    config.training.checkpoint_every = config.training.steps
    pipeline.run(config.to_dict(), str(workdir), ["vqvae"])
    model, params = Workdir(workdir).restore()
    experiment = Experiment.from_config(config.to_dict())
    test = open_dataset(experiment.data).test
    first = Subset(test, np.arange(IMAGES))
    values = evaluate_on(model, params, lambda: experiment.eval_batches(first))
    done.write_text(json.dumps(values))
    return values


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--rows", nargs="*", default=list(ROWS))
    options = parser.parse_args()
    data = {"data.data_dir": options.data_dir}
    columns = (
        ("test_bits_per_dim_uniform_prior", "bits/dim, uniform", 2),
        ("test_psnr_db", "PSNR, dB", 1),
        ("codebook_perplexity", "perplexity", 0),
        ("codebook_active_codes", "codes in use", 0),
        ("z_e_effective_rank", "effective rank", 0),
        ("codebook_mutual_information_bits", "shared bits", 2),
    )
    print("| | " + " | ".join(head for _, head, _ in columns) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for row in options.rows:
        seeds = [
            measure(
                data | ROWS[row],
                options.out / row.replace(" ", "_") / str(seed),
                steps=options.steps,
                seed=seed,
            )
            for seed in range(options.seeds)
        ]
        cells = [
            " / ".join(f"{values[name]:.{digits}f}" for values in seeds)
            for name, _, digits in columns
        ]
        print(f"| {row} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
