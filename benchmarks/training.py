"""Training speed of the paper's CIFAR-10 model, here and in PyTorch, in one run.

    python benchmarks/training.py [--set likelihood=categorical] [--json training.json]

A step is forward, backward and Adam on random images, in float32 and in bfloat16. The
machine's rate is that of one large matrix product in the same dtype.
"""

import dataclasses
import functools
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp

sys.path.insert(0, str(Path(__file__).parents[1]))  # Run from a checkout, as printed.

from benchmarks import command, paper_model, peers, timing
from benchmarks.paper_model import Architecture
from benchmarks.tables import Outcome, Row, Table

OURS, OURS_BFLOAT16 = "vqvae_jax float32", "vqvae_jax bfloat16"
MATMUL = {"float32": "matrix product float32", "bfloat16": "matrix product bfloat16"}
# Options of torch_vqvae.training_step.
TORCH: dict[str, Mapping[str, bool]] = {
    "PyTorch eager": {},
    "PyTorch channels_last": {"channels_last": True},
    "PyTorch compile": {"compiled": True},
    "PyTorch bfloat16 channels_last": {"channels_last": True, "bfloat16": True},
    "PyTorch bfloat16 compile": {
        "channels_last": True,
        "bfloat16": True,
        "compiled": True,
    },
}


@dataclasses.dataclass(frozen=True)
class Sizes(Architecture):
    """The model's, and the side of the matrices whose product is the machine's rate."""

    matmul_side: int = 2048


TINY = Sizes(**dataclasses.asdict(paper_model.TINY), matmul_side=64)


def matmul(side: int, dtype: str) -> timing.Run:
    """Return a function that multiplies two square matrices, with a float32 result."""
    matrix = jnp.ones((side, side), dtype)
    product = functools.partial(jnp.matmul, preferred_element_type=jnp.float32)
    return timing.waits(jax.jit(product), matrix, matrix)


def measure(sizes: Sizes, rounds: int) -> list[Table]:
    """Train all contestants for a step each round."""
    runs: dict[str, Callable] = {
        name: matmul(sizes.matmul_side, dtype) for dtype, name in MATMUL.items()
    }
    runs[OURS] = paper_model.training_step(sizes)
    runs[OURS_BFLOAT16] = paper_model.training_step(sizes, dtype="bfloat16")
    notes = {}
    for name, options in TORCH.items():
        if not peers.are_installed("torch"):
            notes[name] = "not installed"
        elif options.get("compiled") and not peers.can_compile():
            notes[name] = "no C++ compiler"
        else:
            step = peers.attribute("torch_vqvae", "training_step")
            runs[name] = step(sizes, **options)
    seconds = timing.in_turns(runs, rounds, warm_up=2)
    flops = paper_model.training_flops(sizes)
    rates = {
        dtype: 2 * sizes.matmul_side**3 / timing.spread(seconds[name]).median
        for dtype, name in MATMUL.items()
    }
    rows = []
    for name, times in seconds.items():
        median = timing.spread(times).median
        if name in MATMUL.values():
            figures = {"gflop_per_second": 2 * sizes.matmul_side**3 / median / 1e9}
        else:
            rate = rates["bfloat16" if "bfloat16" in name else "float32"]
            figures = {
                "images_per_second": sizes.batch / median,
                "gflop_per_second": flops / median / 1e9,
                "share_of_matrix_product": flops / median / rate,
            }
        rows.append(Row(name, times, figures))
    rows += [Row(name, note=note) for name, note in notes.items()]
    title = f"A training step, batch {sizes.batch}, {sizes.likelihood} decoder"
    return [Table(title, rows, _outcomes(seconds, flops, sizes.matmul_side))]


def _outcomes(seconds, flops, matmul_side) -> list[Outcome]:
    """Compare with each peer of the same dtype, and with the machine."""
    on_cpu = jax.default_backend() == "cpu"
    goals = {"PyTorch eager": 1.0} if on_cpu else {"PyTorch bfloat16 compile": 1.2}
    shares = {"float32": 0.7} if on_cpu else {"bfloat16": 0.4}
    outcomes = []
    for name in TORCH:
        ours = OURS_BFLOAT16 if "bfloat16" in name else OURS
        if name in seconds:
            speed = timing.ratios(seconds[name], seconds[ours])
            outcomes.append(Outcome(f"{ours} over {name}", speed, goals.get(name)))
    for dtype, ours in (("float32", OURS), ("bfloat16", OURS_BFLOAT16)):
        # Of equal arithmetic the times' ratio would be the share.
        scale = flops / (2 * matmul_side**3)
        share = [
            scale * r for r in timing.ratios(seconds[MATMUL[dtype]], seconds[ours])
        ]
        name = f"{ours}, share of the matrix product's rate"
        outcomes.append(Outcome(name, share, shares.get(dtype)))
    return outcomes


BENCHMARK = command.Benchmark("training", measure, Sizes(), TINY, rounds=7)

if __name__ == "__main__":
    command.main(__doc__, [BENCHMARK])
