"""How costs grow: exponents p of seconds = c size^p, fitted to sizes in turns.

    python benchmarks/growth.py [--json growth.json]

Training in images of a batch and in pixels of an image, sampling in cells of a grid,
the quantizer in N K. An exponent of 1 is linear growth.
"""

import dataclasses
import sys
from pathlib import Path

import jax

sys.path.insert(0, str(Path(__file__).parents[1]))  # Run from a checkout, as printed.

from benchmarks import command, paper_model, quantizer_steps, sampling, timing
from benchmarks.tables import Outcome, Row, Table

GOAL = 1.05


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What is varied, and the rest that stays as it is."""

    units: int = 128
    dim: int = 64
    batch: int = 16
    batches: tuple[int, ...] = (8, 16, 32, 64)
    image_sides: tuple[int, ...] = (32, 64, 128)
    layers: int = 15
    grid_sides: tuple[int, ...] = (16, 32, 64)
    # (N, K)
    searches: tuple[tuple[int, int], ...] = (
        (16_384, 512),
        (65_536, 512),
        (16_384, 2048),
        (65_536, 2048),
        (16_384, 8192),
        (65_536, 8192),
    )


TINY = Sizes(8, 4, 2, (2, 4), (8, 16), 1, (2, 4), ((64, 8), (64, 16)))


def measure(sizes: Sizes, rounds: int) -> list[Table]:
    """Fit each cost on its own."""
    tiny_codebooks = {"num_codebooks": 2, "num_codes": 64, "dim": sizes.dim}
    side = sizes.image_sides[0]

    def train(batch: int, side: int) -> timing.Run:
        architecture = paper_model.Architecture(
            batch=batch, side=side, units=sizes.units, **tiny_codebooks
        )
        return paper_model.training_step(architecture)

    prior = sampling.Sizes(layers=sizes.layers, units=sizes.units)
    network, params = sampling.build(prior)

    def sample(side: int) -> timing.Run:
        sampler = sampling.compiled_sampler(network, params, 1, side)
        return timing.waits(sampler, params, jax.random.key(0))

    of_batches = {batch: train(batch, side) for batch in sizes.batches}
    of_pixels = {side**2: train(sizes.batch, side) for side in sizes.image_sides}
    of_cells = {side**2: sample(side) for side in sizes.grid_sides}
    of_searches = {
        (n, k): quantizer_steps.ours(n, k, sizes.dim) for n, k in sizes.searches
    }
    return [
        _fit("training in images", of_batches, rounds),
        _fit("training in pixels", of_pixels, rounds),
        _fit("sampling in cells", of_cells, rounds),
        _fit("quantizer in N K", of_searches, rounds),
    ]


def _fit(name: str, runs: dict, rounds: int) -> Table:
    seconds = timing.in_turns(runs, rounds)
    sizes = {
        size: size[0] * size[1] if isinstance(size, tuple) else size for size in runs
    }
    rows = [
        Row(str(size), times, {"size": sizes[size]}) for size, times in seconds.items()
    ]
    powers = timing.exponents(list(sizes.values()), list(seconds.values()))
    outcome = Outcome(f"{name}, exponent", powers, GOAL, at_most=True)
    return Table(f"Growth of {name}", rows, [outcome])


BENCHMARK = command.Benchmark("growth", measure, Sizes(), TINY, rounds=3)

if __name__ == "__main__":
    command.main(__doc__, [BENCHMARK])
