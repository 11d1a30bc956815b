"""Training speed of the paper's CIFAR-10 model, compared with PyTorch.

    python benchmarks/training.py [--set likelihood=categorical] [--json training.json]

A step is the forward pass, backward pass and Adam update for random images, in float32
and in bfloat16. Two rows measure the machine: a large matrix product in each dtype, and
adding one to every number of a large array. The bytes of a step are XLA's count for the
compiled program.
"""

import dataclasses
import functools
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp

sys.path.insert(0, str(Path(__file__).parents[1]))  # Allow running as a script.

from benchmarks import command, paper_model, peers, timing
from benchmarks.paper_model import Architecture
from benchmarks.report import Outcome, Row, Table

OURS, OURS_BFLOAT16 = "vqvae_jax float32", "vqvae_jax bfloat16"
OURS_BY_DTYPE = {OURS: "float32", OURS_BFLOAT16: "bfloat16"}
MATMUL = {"float32": "matrix product float32", "bfloat16": "matrix product bfloat16"}
COPY = "copy"
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
    """The model, and the sizes of the operations that measure the machine.

    matmul_side: side of the square matrices in the matrix product.
    copied_floats: numbers in the array that is read and written.
    """

    matmul_side: int = 2048
    copied_floats: int = 2**26


TINY = Sizes(**dataclasses.asdict(paper_model.TINY), matmul_side=64, copied_floats=64)


def matmul(side: int, dtype: str) -> timing.Run:
    """Return a function that multiplies two square matrices, with a float32 result."""
    matrix = jnp.ones((side, side), dtype)
    product = functools.partial(jnp.matmul, preferred_element_type=jnp.float32)
    return timing.waits(jax.jit(product), matrix, matrix)


def copy(num_floats: int) -> timing.Run:
    """Return a function that reads an array and writes another of the same size."""
    return timing.waits(jax.jit(lambda x: x + 1), jnp.zeros(num_floats, "float32"))


def measure(sizes: Sizes, rounds: int) -> list[Table]:
    """Time one training step of each contestant per round."""
    runs: dict[str, Callable] = {
        name: matmul(sizes.matmul_side, dtype) for dtype, name in MATMUL.items()
    }
    runs[COPY] = copy(sizes.copied_floats)
    num_bytes = {COPY: 8 * sizes.copied_floats}
    for name, dtype in OURS_BY_DTYPE.items():
        runs[name], num_bytes[name] = paper_model.training_step(sizes, dtype=dtype)
    peer_steps, notes = _torch_steps(sizes)
    seconds = timing.in_turns(runs | peer_steps, rounds, warm_up=2)
    flops = paper_model.training_flops(sizes)
    product = 2 * sizes.matmul_side**3
    rates = {
        dtype: product / timing.spread(seconds[name]).median
        for dtype, name in MATMUL.items()
    }
    rows = []
    for name, times in seconds.items():
        median = timing.spread(times).median
        figures = {}
        if name in MATMUL.values():
            figures["gflop_per_second"] = product / median / 1e9
        elif name != COPY:
            rate = rates["bfloat16" if "bfloat16" in name else "float32"]
            figures = {
                "images_per_second": sizes.batch / median,
                "gflop_per_second": flops / median / 1e9,
                "share_of_matrix_product": flops / median / rate,
            }
        if name in num_bytes:
            figures["gigabyte_per_second"] = num_bytes[name] / median / 1e9
        rows.append(Row(name, times, figures))
    rows += [Row(name, note=note) for name, note in notes.items()]
    title = f"A training step, batch {sizes.batch}, {sizes.likelihood} decoder"
    return [Table(title, rows, _outcomes(seconds, flops, sizes.matmul_side))]


def _torch_steps(sizes: Sizes) -> tuple[dict[str, timing.Run], dict[str, str]]:
    """Return PyTorch's steps that work, and the reasons why others are missing."""
    steps, notes = {}, {}
    for name, options in TORCH.items():
        if not peers.are_installed("torch"):
            notes[name] = "not installed"
            continue
        if options.get("compiled") and not peers.can_compile():
            notes[name] = "no C++ compiler"
            continue
        step = peers.attribute("torch_vqvae", "training_step")(sizes, **options)
        try:
            step()
        except RuntimeError as error:
            # Whether torch.compile works depends on the compiler and the system, too.
            notes[name] = f"failed: {str(error).splitlines()[0][:60]}"
        else:
            steps[name] = step
    return steps, notes


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
            text = f"{name} / {ours}, time"
            outcomes.append(Outcome(text, speed, goals.get(name)))
    for ours, dtype in OURS_BY_DTYPE.items():
        # For equal operation counts the ratio of times would be the share.
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
