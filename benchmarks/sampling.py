"""Sampling speed of the PixelCNN: cached, beside the naive way, in one run.

    python benchmarks/sampling.py [--output sampling.json]

The naive sampler computes the whole network for each code. It is timed for a few codes
and scaled to all of them, as a grid of 32x32 would take it most of an hour. Memory is
what XLA says the compiled program needs besides its inputs and outputs.
"""

import dataclasses
import functools
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))  # Run from a checkout, as printed.

import timing

from vqvae_jax import sampling
from vqvae_jax.networks.pixelcnn import PixelCNN


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Batches and grids to sample, of one network."""

    layers: int = 15
    units: int = 128
    num_codes: int = 512
    side: int = 32
    batch: int = 16
    batches: tuple[int, ...] = (1, 16, 128)
    sides_of_memory: tuple[int, ...] = (32, 64, 128)
    naive_codes: int = 3


QUICK = Sizes(2, 8, 16, 4, 2, (1, 2), (4, 8), 2)


def build(sizes: Sizes) -> tuple[PixelCNN, dict]:
    """Return the network with random parameters; their values cost no time."""
    network = PixelCNN(sizes.num_codes, layers=sizes.layers, units=sizes.units)
    grid = jnp.zeros((1, 4, 4, 1), jnp.int32)
    shapes = jax.eval_shape(network.init, jax.random.key(0), grid)
    return network, timing.random_params(shapes)


def compiled_sampler(network: PixelCNN, params: dict, batch: int, side: int):
    """Compile the cached sampler for a batch of square grids."""
    draw = functools.partial(sampling.cached, network, shape=(batch, side, side, 1))
    jitted = jax.jit(lambda params, key: draw(params, key))
    return jitted.lower(params, jax.random.key(0)).compile()


def naive_step(network: PixelCNN, params: dict, batch: int, side: int):
    """Return a function that draws one code of each grid the naive way."""
    codes = jnp.zeros((batch, side, side, 1), jnp.int32)

    @jax.jit
    def draw(params, key, codes, place):
        logits = network.apply(params, codes).reshape(batch, side * side, -1)
        here = jax.lax.dynamic_index_in_dim(logits, place, 1, keepdims=False)
        code = jax.random.categorical(key, here).astype(jnp.int32)
        return codes.reshape(batch, -1).at[:, place].set(code).reshape(codes.shape)

    key = jax.random.key(0)
    return lambda: draw(params, key, codes, side).block_until_ready()


def block(function: Callable, *arguments: Any) -> None:
    """Call a function and wait for what it returns."""
    jax.block_until_ready(function(*arguments))


def measure(sizes: Sizes, rounds: int) -> dict:
    """Measure everything in turn and return the figures."""
    network, params = build(sizes)
    key = jax.random.key(0)
    results: dict = {"grids": []}
    grids = [(batch, sizes.side) for batch in sizes.batches]
    grids.append((sizes.batch, 2 * sizes.side))
    runs = {}
    for batch, side in grids:
        sampler = compiled_sampler(network, params, batch, side)
        runs[batch, side] = functools.partial(block, sampler, params, key)
    # Not in turns with the others: a call takes seconds, and three are enough.
    naive = naive_step(network, params, sizes.batch, sizes.side)
    naive = timing.in_turns({"naive": naive}, sizes.naive_codes)["naive"]
    for (batch, side), times in timing.in_turns(runs, rounds).items():
        median = statistics.median(times)
        results["grids"].append(
            {
                "batch": batch,
                "side": side,
                "median_seconds": median,
                "fastest_seconds": min(times),
                "slowest_seconds": max(times),
                "samples_per_second": batch / median,
                "microseconds_per_code": 1e6 * median / side**2 / batch,
            }
        )
    by_grid = {(r["batch"], r["side"]): r["median_seconds"] for r in results["grids"]}
    ours = by_grid[sizes.batch, sizes.side]
    results["naive_seconds_per_code"] = statistics.median(naive)
    results["naive_seconds_scaled"] = statistics.median(naive) * sizes.side**2
    results["naive_over_cached"] = results["naive_seconds_scaled"] / ours
    results["twice_the_side_takes"] = by_grid[sizes.batch, 2 * sizes.side] / ours
    results["temporary_bytes_by_side"] = {
        side: compiled_sampler(network, params, sizes.batch, side)
        .memory_analysis()
        .temp_size_in_bytes
        for side in sizes.sides_of_memory
    }
    return results


def print_report(sizes: Sizes, results: dict) -> None:
    """Print a table and the ratios below it."""
    console = Console()
    table = Table(
        title=f"Cached PixelCNN sampler: {sizes.layers} layers x {sizes.units} units, "
        f"K = {sizes.num_codes}, C = 1, {jax.devices()[0].device_kind}"
    )
    for header in ("grid", "batch", "samples/s", "s/batch", "spread", "us/code"):
        table.add_column(header, justify="right")
    for row in results["grids"]:
        table.add_row(
            f"{row['side']}x{row['side']}",
            str(row["batch"]),
            f"{row['samples_per_second']:.2f}",
            f"{row['median_seconds']:.2f}",
            f"{row['fastest_seconds']:.2f}-{row['slowest_seconds']:.2f}",
            f"{row['microseconds_per_code']:.0f}",
        )
    console.print(table)
    console.print(
        f"naive, {sizes.side}x{sizes.side}, batch {sizes.batch}: "
        f"{results['naive_seconds_per_code']:.2f} s a code (median of "
        f"{sizes.naive_codes}), scaled to all {sizes.side**2} codes "
        f"{results['naive_seconds_scaled']:.0f} s: "
        f"{results['naive_over_cached']:.0f} times the cached sampler"
    )
    console.print(
        f"twice the side, four times the codes: "
        f"{results['twice_the_side_takes']:.2f} times the time"
    )
    memory = ", ".join(
        f"{side}x{side} {size / 2**20:.1f} MiB"
        for side, size in results["temporary_bytes_by_side"].items()
    )
    console.print(f"temporary memory, batch {sizes.batch}: {memory}")


if __name__ == "__main__":
    timing.main(
        __doc__,
        full=Sizes(),
        quick=QUICK,
        measure=measure,
        print_report=print_report,
        rounds=5,
    )
