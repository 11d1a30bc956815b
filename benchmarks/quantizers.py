"""Speed and memory of the quantizers' training steps, compared with peers.

    python benchmarks/quantizers.py [--json quantizers.json]

A step is the forward pass, backward pass and update for 65 536 vectors. Peak memory is
the amount that the step adds to a fresh process. The EMA codebook is compared with two
peers, every other quantizer with that of vector-quantize-pytorch.
"""

import dataclasses
import functools
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # Allow running as a script.

from benchmarks import command, peak_memory, peers, quantizer_steps, timing
from benchmarks.report import Outcome, Row, Table

OURS, TORCH, HAIKU = "vqvae_jax", "vector-quantize-pytorch", "dm-haiku"
# Required modules, and the function in `quantizer_steps` that builds the step.
CONTESTANTS = {
    OURS: ((), "ours"),
    TORCH: (("torch", "vector_quantize_pytorch"), "of_torch"),
    HAIKU: (("haiku",), "of_haiku"),
}


@dataclasses.dataclass(frozen=True)
class Sizes:
    """N vectors of dimension D and the numbers of codes K, with one goal per K."""

    num_vectors: int = 65_536
    dim: int = 64
    num_codes: tuple[int, ...] = (512, 8192)
    speed_goals: tuple[float, ...] = (5.0, 8.0)
    memory_goal: float = 4.0
    members: tuple[str, ...] = tuple(quantizer_steps.MEMBERS)


TINY = Sizes(
    num_vectors=64, dim=8, num_codes=(8,), speed_goals=(5.0,), members=("fsq",)
)


def measure(sizes: Sizes, rounds: int) -> Iterator[Table]:
    """Time one step of each contestant per round, for each number of codes."""
    for num_codes, goal in zip(sizes.num_codes, sizes.speed_goals, strict=True):
        yield _measure_one(sizes, num_codes, goal, rounds)
    for member in sizes.members:
        yield _measure_member(sizes, member, rounds)


def _measure_member(sizes: Sizes, member: str, rounds: int) -> Table:
    """Compare one quantizer with its peer."""
    shape = {"member": member, "num_vectors": sizes.num_vectors, "dim": sizes.dim}
    functions = {OURS: "our_member"}
    if peers.are_installed(*CONTESTANTS[TORCH][0]):
        functions[TORCH] = "member_of_torch"
    memory = {
        name: peak_memory.of_run("quantizer_steps", function, **shape)
        for name, function in functions.items()
    }
    runs = {
        name: getattr(quantizer_steps, function)(**shape)
        for name, function in functions.items()
    }
    seconds = timing.in_turns(runs, rounds)
    rows = []
    for name in (OURS, TORCH):
        if name not in functions:
            rows.append(Row(name, note="not installed"))
            continue
        figures = {"peak_mebibytes": memory[name] / 2**20} if memory[name] else {}
        rows.append(Row(name, seconds[name], figures))
    outcomes = []
    if TORCH in functions:
        goal = quantizer_steps.MEMBERS[member].speed_goal
        speed = timing.ratios(seconds[TORCH], seconds[OURS])
        outcomes.append(Outcome(f"{member}: {TORCH} / {OURS}, time", speed, goal))
        if memory[TORCH] and memory[OURS]:
            ratio = [memory[TORCH] / memory[OURS]]
            outcomes.append(Outcome(f"{member}: {TORCH} / {OURS}, memory", ratio, 2.0))
    title = f"{member}, N = {sizes.num_vectors:,}, D = {sizes.dim}"
    return Table(title, rows, outcomes)


def _measure_one(sizes: Sizes, num_codes: int, goal: float, rounds: int) -> Table:
    shape = {
        "num_vectors": sizes.num_vectors,
        "num_codes": num_codes,
        "dim": sizes.dim,
    }
    present = {
        name: function
        for name, (modules, function) in CONTESTANTS.items()
        if peers.are_installed(*modules)
    }
    measure_memory = functools.partial(peak_memory.of_run, "quantizer_steps", **shape)
    memory = {name: measure_memory(function) for name, function in present.items()}
    runs = {
        name: getattr(quantizer_steps, function)(**shape)
        for name, function in present.items()
    }
    seconds = timing.in_turns(runs, rounds)
    rows = []
    for name in CONTESTANTS:
        if name not in present:
            rows.append(Row(name, note="not installed"))
            continue
        median = timing.spread(seconds[name]).median
        figures = {"million_vectors_per_second": sizes.num_vectors / median / 1e6}
        if memory[name] is not None:
            figures["peak_mebibytes"] = memory[name] / 2**20
        rows.append(Row(name, seconds[name], figures))
    outcomes = []
    for name in [name for name in present if name != OURS]:
        goals = (goal, sizes.memory_goal) if name == TORCH else (None, None)
        speed = timing.ratios(seconds[name], seconds[OURS])
        text = f"K = {num_codes}: {name} / {OURS}, time"
        outcomes.append(Outcome(text, speed, goals[0]))
        if memory[name] and memory[OURS]:
            ratio = [memory[name] / memory[OURS]]
            text = f"K = {num_codes}: {name} / {OURS}, memory"
            outcomes.append(Outcome(text, ratio, goals[1]))
    title = f"Quantizer, N = {sizes.num_vectors:,}, D = {sizes.dim}, K = {num_codes:,}"
    return Table(title, rows, outcomes)


BENCHMARK = command.Benchmark("quantizers", measure, Sizes(), TINY, rounds=5)

if __name__ == "__main__":
    command.main(__doc__, [BENCHMARK])
