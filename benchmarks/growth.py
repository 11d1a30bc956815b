"""Scaling of run time with size: exponents p of a fit of seconds = c size^p.

    python benchmarks/growth.py [--json growth.json]

The sizes are: images per batch and pixels per image for training, cells per grid for
sampling, N K for the quantizer. An exponent of 1 is linear growth.
"""

import dataclasses
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import jax

sys.path.insert(0, str(Path(__file__).parents[1]))  # Allow running as a script.

from benchmarks import command, paper_model, quantizer_steps, sampling, timing
from benchmarks.report import Outcome, Row, Table

# The measured sizes, each as factors whose product is the size.
Factors = Sequence[tuple[int, ...]]


@dataclasses.dataclass(frozen=True)
class Sizes:
    """The varied sizes and the fixed ones."""

    channels: int = 128
    dim: int = 64
    batch: int = 16
    batches: tuple[int, ...] = (8, 16, 32, 64)
    image_sides: tuple[int, ...] = (32, 64, 128)
    layers: int = 15
    grid_sides: tuple[int, ...] = (16, 32, 64)
    # N and K.
    searches: tuple[tuple[int, int], ...] = (
        (16_384, 512),
        (65_536, 512),
        (16_384, 2048),
        (65_536, 2048),
        (16_384, 8192),
        (65_536, 8192),
    )


TINY = Sizes(8, 4, 2, (2, 4), (8, 16), 1, (2, 4), ((64, 8), (64, 16)))


def measure(sizes: Sizes, rounds: int) -> Iterator[Table]:
    """Fit one exponent per cost."""
    side = sizes.image_sides[0]

    def train(batch: int, side: int) -> timing.Run:
        architecture = paper_model.Architecture(
            batch=batch,
            side=side,
            channels=sizes.channels,
            num_codebooks=2,
            num_codes=64,
            dim=sizes.dim,
        )
        return paper_model.training_step(architecture).run

    prior = sampling.Sizes(layers=sizes.layers, channels=sizes.channels)
    network, params = sampling.build(prior)

    def sample(side: int) -> timing.Run:
        sampler = sampling.compiled_sampler(network, params, 1, side)
        return timing.waits(sampler, params, jax.random.key(0))

    def squares(sides: Sequence[int]) -> Factors:
        return [(side, side) for side in sides]

    yield _fit(
        "training time in images",
        [(batch,) for batch in sizes.batches],
        lambda batch: train(batch, side),
        rounds,
    )
    yield _fit(
        "training time in pixels",
        squares(sizes.image_sides),
        lambda side, _: train(sizes.batch, side),
        rounds,
    )
    yield _fit(
        "sampling time in cells",
        squares(sizes.grid_sides),
        lambda side, _: sample(side),
        rounds,
    )
    yield _fit(
        "quantizer time in N K",
        sizes.searches,
        lambda n, k: quantizer_steps.ours(n, k, sizes.dim),
        rounds,
    )


def _fit(
    name: str, varied: Factors, make: Callable[..., timing.Run], rounds: int
) -> Table:
    runs = {factors: make(*factors) for factors in varied}
    seconds = timing.in_turns(runs, rounds)
    sizes = [math.prod(factors) for factors in varied]
    rows = [
        Row(" x ".join(map(str, factors)), seconds[factors], {"size": size})
        for factors, size in zip(varied, sizes, strict=True)
    ]
    powers = timing.exponents(sizes, list(seconds.values()))
    outcome = Outcome(f"{name}, exponent", powers, goal=1.05, at_most=True)
    return Table(f"Growth of {name}", rows, [outcome])


BENCHMARK = command.Benchmark("growth", measure, Sizes(), TINY, rounds=3)

if __name__ == "__main__":
    command.main(__doc__, [BENCHMARK])
