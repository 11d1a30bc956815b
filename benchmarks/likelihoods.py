"""Time of -log p(x|z) and its gradient, for each likelihood of 32x32 RGB images.

    python benchmarks/likelihoods.py [--json likelihoods.json]

The gradient is with respect to the decoder's outputs. Mixtures of logistics take most
of their time in exponentials, so fewer components are faster. Each likelihood is
compared with the softmax over 256 values.
"""

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp

sys.path.insert(0, str(Path(__file__).parents[1]))  # Allow running as a script.

from benchmarks import command, timing
from benchmarks.report import Outcome, Row, Table
from vqvae_jax.likelihoods import (
    Categorical,
    CoupledLogisticMixture,
    DiscretizedGaussian,
    LogisticMixture,
)

SOFTMAX = "softmax"
LIKELIHOODS = {
    SOFTMAX: Categorical(),
    "Gaussian": DiscretizedGaussian(),
    "10 logistics a channel": LogisticMixture(),
    "10 coupled components": CoupledLogisticMixture(),
    "5 coupled components": CoupledLogisticMixture(components=5),
}


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Images at once, and their side."""

    batch: int = 64
    side: int = 32


TINY = Sizes(batch=2, side=4)


def measure(sizes: Sizes, rounds: int) -> Iterator[Table]:
    """Time one gradient of each likelihood per round."""
    key = jax.random.key(0)
    shape = (sizes.batch, sizes.side, sizes.side)
    images = jax.random.randint(key, (*shape, 3), 0, 256, jnp.uint8)

    def run(likelihood):
        outputs = 0.1 * jax.random.normal(key, (*shape, likelihood.num_outputs(3)))
        gradient = jax.grad(lambda x: -likelihood.log_prob(x, images).mean())
        return timing.waits(jax.jit(gradient), outputs)

    seconds = timing.in_turns(
        {name: run(likelihood) for name, likelihood in LIKELIHOODS.items()}, rounds
    )
    rows = [
        Row(
            name,
            times,
            {"images_per_second": sizes.batch / timing.spread(times).median},
        )
        for name, times in seconds.items()
    ]
    outcomes = [
        Outcome(f"{name} / {SOFTMAX}, time", timing.ratios(times, seconds[SOFTMAX]))
        for name, times in seconds.items()
        if name != SOFTMAX
    ]
    title = f"Likelihoods, {sizes.batch} images of {sizes.side}x{sizes.side}x3"
    yield Table(title, rows, outcomes)


BENCHMARK = command.Benchmark("likelihoods", measure, Sizes(), TINY, rounds=7)

if __name__ == "__main__":
    command.main(__doc__, [BENCHMARK])
