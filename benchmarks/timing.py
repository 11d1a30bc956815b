"""Timing of functions in turns, so that a busy machine slows all of them equally."""

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Run = Callable[[], Any]


class Spread(NamedTuple):
    """Median and quartiles of measurements."""

    median: float
    lower: float
    upper: float


def spread(values: Sequence[float]) -> Spread:
    """Return the median and the quartiles."""
    lower, median, upper = np.percentile(values, (25, 50, 75))
    return Spread(float(median), float(lower), float(upper))


def in_turns(
    runs: Mapping[Hashable, Run], rounds: int, *, warm_up: int = 1
) -> dict[Hashable, list[float]]:
    """Time each function once per round, after `warm_up` untimed calls of each."""
    for run in runs.values():
        for _ in range(warm_up):
            run()
    seconds: dict[Hashable, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def ratios(seconds: Sequence[float], ours: Sequence[float]) -> list[float]:
    """Return the ratio of run times to ours, per round."""
    return [a / b for a, b in zip(seconds, ours, strict=True)]


def exponents(
    sizes: Sequence[float], seconds: Sequence[Sequence[float]]
) -> list[float]:
    """Fit seconds = c size^p in each round; return p per round.

    Args:
      sizes: at least two sizes, in any unit.
      seconds: run times of each size, one per round.
    """
    logarithms = np.log(np.asarray(seconds))
    return np.polyfit(np.log(sizes), logarithms, deg=1)[0].tolist()


def waits(function: Callable, *arguments: Any) -> Run:
    """Return a function that calls `function` and blocks until its result is ready."""
    return lambda: jax.block_until_ready(function(*arguments))


def random_params(shapes: Any) -> Any:
    """Draw parameters of these shapes; their values do not affect speed."""
    rng = np.random.default_rng(0)

    def draw(leaf):
        fan_in = max(1, np.prod(leaf.shape[:-1]))
        return jnp.asarray(rng.normal(size=leaf.shape) * fan_in**-0.5, "float32")

    return jax.tree.map(draw, shapes)
