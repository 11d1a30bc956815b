"""Training speed of the paper's CIFAR-10 model, here and in PyTorch, in one run.

    python benchmarks/training.py [--likelihood categorical] [--output training.json]

A step is forward, backward and Adam, in float32, on random images. The contestants
take turns, so that a busy machine slows all of them alike; medians are compared. Where
PyTorch is not installed (benchmarks/requirements.txt), only this project is measured.
"""

import argparse
import dataclasses
import functools
import json
import platform
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))  # Run from a checkout, as printed.

import timing

from vqvae_jax.models.vqvae import VQVAE
from vqvae_jax.training.config import TrainingConfig
from vqvae_jax.training.optimizer import make_optimizer
from vqvae_jax.training.state import init_state, make_train_step

try:
    import torch
    import torch_vqvae
except ImportError:
    torch = None

OURS = "vqvae_jax"
TORCH = "PyTorch eager"
TORCH_CHANNELS_LAST = "PyTorch channels_last"
MATMUL = "matrix multiply"


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Section 4.1's model; 8x8x10 latents come from two stages and ten codebooks."""

    likelihood: str
    batch: int = 64
    side: int = 32
    units: int = 256
    num_codebooks: int = 10
    num_codes: int = 512
    dim: int = 64
    matmul_side: int = 2048

    @property
    def outputs(self) -> int:
        """Channels that the decoder ends in."""
        return 3 * (256 if self.likelihood == "categorical" else 1)

    @property
    def features(self) -> int:
        """Channels of z_e."""
        return self.num_codebooks * self.dim


def training_flops(sizes: Sizes) -> int:
    """Count a step's multiplications and additions in convolutions and distances.

    The backward pass costs two forward passes, but for the first layer, whose input
    needs no gradient, and for the distances, which have none.
    """
    units, features = sizes.units, sizes.features
    full, half, quarter = (sizes.side // 2**i for i in range(3))
    block = quarter**2 * (9 + 1) * units**2
    first = half**2 * 16 * 3 * units
    others = (
        quarter**2 * 16 * units**2
        + 2 * block
        + quarter**2 * units * features
        + quarter**2 * 9 * features * units
        + 2 * block
        + half**2 * 4 * units**2
        + full**2 * 4 * units * sizes.outputs
    )
    distances = quarter**2 * features * sizes.num_codes
    return 2 * sizes.batch * (2 * first + 3 * others + distances)


def random_batch(sizes: Sizes) -> dict[str, np.ndarray]:
    """Return a batch as the input pipelines give it."""
    shape = (sizes.batch, sizes.side, sizes.side, 3)
    return {
        "image": np.random.default_rng(0).integers(0, 256, shape, np.uint8),
        "label": np.zeros(sizes.batch, np.int32),
        "mask": np.ones(sizes.batch, bool),
    }


def our_step(sizes: Sizes) -> Callable[[], None]:
    """Return a function that trains for one step of this project's own loop."""
    model = VQVAE(
        image_shape=(sizes.side, sizes.side, 3),
        num_codes=sizes.num_codes,
        num_codebooks=sizes.num_codebooks,
        dim=sizes.dim,
        units=sizes.units,
        residual_units=sizes.units,
        likelihood=sizes.likelihood,
        codebook_init="uniform",
    )
    batch = jax.device_put(random_batch(sizes))
    key = jax.random.key(0)
    trainable = model.trainable(jax.eval_shape(model.init, key, batch))
    optimizer = make_optimizer(
        TrainingConfig(steps=1, batch_size=sizes.batch), trainable
    )
    init = jax.jit(functools.partial(init_state, model, optimizer))
    train_step = jax.jit(make_train_step(model, optimizer), donate_argnums=0)
    state = init(key, batch)

    def step():
        nonlocal state
        state, metrics = train_step(state, batch)
        jax.block_until_ready((state, metrics))

    return step


def matmul_step(sizes: Sizes) -> Callable[[], None]:
    """Return a function that multiplies two large square matrices."""
    matrix = jnp.ones((sizes.matmul_side, sizes.matmul_side))
    multiply = jax.jit(jnp.dot)
    return lambda: multiply(matrix, matrix).block_until_ready()


def summarise(sizes: Sizes, seconds: dict[str, list[float]]) -> dict:
    """Return the figures that are printed and written."""
    peak = 2 * sizes.matmul_side**3 / statistics.median(seconds.pop(MATMUL))
    flops = training_flops(sizes)
    results = {}
    for name, times in seconds.items():
        median = statistics.median(times)
        results[name] = {
            "median_seconds_per_step": median,
            "fastest_seconds_per_step": min(times),
            "slowest_seconds_per_step": max(times),
            "images_per_second": sizes.batch / median,
            "share_of_matmul_rate": flops / median / peak,
        }
    return {
        "sizes": dataclasses.asdict(sizes),
        "jax": jax.__version__,
        "torch": torch.__version__ if torch else None,
        "torch_threads": torch.get_num_threads() if torch else None,
        "device": jax.devices()[0].device_kind,
        "processor": platform.machine(),
        "flops_per_step": flops,
        "matmul_flops_per_second": peak,
        "results": results,
        "ours_over_torch": {
            name: results[OURS]["images_per_second"] / figures["images_per_second"]
            for name, figures in results.items()
            if name != OURS
        },
    }


def print_table(report: dict) -> None:
    """Print one row a contestant."""
    sizes = report["sizes"]
    table = Table(
        title=f"Training, batch {sizes['batch']}, {sizes['likelihood']} decoder\n"
        f"matrix multiply: {report['matmul_flops_per_second'] / 1e9:.1f} GFLOP/s; "
        f"PyTorch threads: {report['torch_threads'] or 'not installed'}"
    )
    headers = (
        "",
        "images/s",
        "s/step",
        "spread",
        "of matmul rate",
        "ours / it",
    )
    for header in headers:
        table.add_column(header, justify="right" if header else "left")
    for name in (OURS, TORCH, TORCH_CHANNELS_LAST):
        if name not in report["results"]:
            table.add_row(name, "not installed")
            continue
        row = report["results"][name]
        ratio = report["ours_over_torch"].get(name)
        table.add_row(
            name,
            f"{row['images_per_second']:.1f}",
            f"{row['median_seconds_per_step']:.3f}",
            f"{row['fastest_seconds_per_step']:.3f}-"
            f"{row['slowest_seconds_per_step']:.3f}",
            f"{row['share_of_matmul_rate']:.0%}",
            f"{ratio:.2f}" if ratio else "",
        )
    Console().print(table)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--likelihood", choices=("mse", "categorical"), default="mse")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument(
        "--rounds", type=int, default=9, help="steps of each contestant"
    )
    parser.add_argument("--quick", action="store_true", help="tiny sizes: a smoke test")
    parser.add_argument("--output", type=Path, help="write the figures here as JSON")
    arguments = parser.parse_args()
    sizes = Sizes(arguments.likelihood, batch=arguments.batch_size)
    if arguments.quick:
        sizes = Sizes(arguments.likelihood, 4, 16, 8, 2, 16, 4, 64)
    contestants = {MATMUL: matmul_step(sizes), OURS: our_step(sizes)}
    if torch:
        images = random_batch(sizes)["image"]
        for name, channels_last in ((TORCH, False), (TORCH_CHANNELS_LAST, True)):
            contestants[name] = torch_vqvae.training_step(
                images,
                units=sizes.units,
                num_codebooks=sizes.num_codebooks,
                num_codes=sizes.num_codes,
                dim=sizes.dim,
                categorical=sizes.likelihood == "categorical",
                channels_last=channels_last,
            )
    report = summarise(sizes, timing.in_turns(contestants, arguments.rounds, warm_up=2))
    print_table(report)
    if arguments.output:
        arguments.output.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
