"""What the benchmarks share: turns, random parameters, the command line, the JSON."""

import argparse
import dataclasses
import json
import time
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def in_turns(
    runs: dict[Hashable, Callable[[], Any]], rounds: int, *, warm_up: int = 1
) -> dict[Hashable, list[float]]:
    """Return the seconds of functions, all once a round, after some calls of each.

    A busy machine then slows all of them alike.
    """
    for run in runs.values():
        for _ in range(warm_up):
            run()
    times: dict[Hashable, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return times


def random_params(shapes: Any) -> Any:
    """Return parameters of these shapes; their values cost no time."""
    rng = np.random.default_rng(0)

    def draw(leaf):
        fan_in = max(1, np.prod(leaf.shape[:-1]))
        return jnp.asarray(rng.normal(size=leaf.shape) * fan_in**-0.5, "float32")

    return jax.tree.map(draw, shapes)


def main(
    doc: str,
    *,
    full: Any,
    quick: Any,
    measure: Callable[[Any, int], dict],
    print_report: Callable[[Any, dict], None],
    rounds: int,
) -> None:
    """Read the command line, measure, print and write.

    Args:
      doc: the benchmark's docstring.
      full: sizes to measure, a dataclass.
      quick: those of a smoke test.
      measure: sizes and rounds -> figures.
      print_report: prints the figures.
      rounds: unless the command line says others.
    """
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument(
        "--rounds", type=int, default=rounds, help="calls of each, in turns"
    )
    parser.add_argument("--quick", action="store_true", help="tiny sizes: a smoke test")
    parser.add_argument("--output", type=Path, help="write the figures here as JSON")
    arguments = parser.parse_args()
    sizes = quick if arguments.quick else full
    results = measure(sizes, arguments.rounds)
    print_report(sizes, results)
    if arguments.output:
        report = {
            "sizes": dataclasses.asdict(sizes),
            "jax": jax.__version__,
            "device": jax.devices()[0].device_kind,
            "results": results,
        }
        arguments.output.write_text(json.dumps(report, indent=2) + "\n")
