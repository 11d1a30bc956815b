"""Speed of drawing audio from the WaveNet: queued, beside the naive way, in one run.

    python benchmarks/wavenet.py [--output wavenet.json]

The naive sampler computes as much of the sequence as the network sees for each sample:
a window of the receptive field. It is timed for a few samples, and the ratio is of the
times for one sample. The network is conditioned as in speech: features at a 64th of the
rate and a speaker.
"""

import dataclasses
import functools
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

from vqvae_jax.networks.wavenet import SequenceCondition, WaveNet
from vqvae_jax.sampling import sequence

SPEAKERS, FEATURES = 109, 64


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Batches and lengths to draw, of one network."""

    stacks: int = 3
    layers: int = 10
    units: int = 64
    skip_units: int = 128
    sample_rate: int = 16_000
    batch: int = 16
    batches: tuple[int, ...] = (1, 16, 64)
    # The first is drawn with every batch, all of them with one batch.
    seconds: tuple[int, ...] = (1, 10)
    naive_samples: int = 3


QUICK = Sizes(2, 3, 8, 8, 100, 2, (1, 2), (1, 2), 2)


def build(sizes: Sizes) -> tuple[WaveNet, dict]:
    """Return the network with random parameters; their values cost no time."""
    network = WaveNet(
        num_classes=SPEAKERS,
        feature_channels=FEATURES,
        stacks=sizes.stacks,
        layers=sizes.layers,
        units=sizes.units,
        skip_units=sizes.skip_units,
    )
    shapes = jax.eval_shape(
        network.init,
        jax.random.key(0),
        jnp.zeros((1, 8), jnp.int32),
        condition_of(1, 8),
    )
    return network, timing.random_params(shapes)


def condition_of(batch: int, length: int) -> SequenceCondition:
    """Return features and speakers of some sequences."""
    features = np.random.default_rng(0).normal(size=(batch, -(-length // 64), FEATURES))
    return SequenceCondition(
        jnp.arange(batch, dtype=jnp.int32), jnp.asarray(features, "float32")
    )


def queued(network: WaveNet, params: dict, batch: int, length: int) -> Callable:
    """Compile the queued sampler; the function returned draws once."""
    draw = functools.partial(sequence.queued, network, shape=(batch, length))
    jitted = jax.jit(
        lambda params, key, condition: draw(params, key, condition=condition)
    )
    inputs = params, jax.random.key(0), condition_of(batch, length)
    compiled = jitted.lower(*inputs).compile()
    return lambda: jax.block_until_ready(compiled(*inputs))


def naive(network: WaveNet, params: dict, batch: int) -> Callable:
    """Return a function that draws one sample of each sequence the naive way."""
    window = network.receptive_field + 1
    condition = condition_of(batch, window)
    values = jnp.zeros((batch, window), jnp.int32)

    @jax.jit
    def draw(params, key, values, condition):
        logits = network.apply(params, values, condition)[:, -1]
        drawn = jax.random.categorical(key, logits).astype(jnp.int32)
        return jnp.concatenate([values[:, 1:], drawn[:, None]], axis=1)

    key = jax.random.key(0)
    return lambda: jax.block_until_ready(draw(params, key, values, condition))


def measure(sizes: Sizes, rounds: int) -> dict:
    """Measure everything in turn and return the figures."""
    network, params = build(sizes)
    first, *longer = (seconds * sizes.sample_rate for seconds in sizes.seconds)
    shapes = [(batch, first) for batch in sizes.batches]
    shapes += [(sizes.batch, length) for length in longer]
    runs = {shape: queued(network, params, *shape) for shape in shapes}
    of_naive = timing.in_turns(
        {"naive": naive(network, params, sizes.batch)}, sizes.naive_samples
    )
    rows = []
    for (batch, length), times in timing.in_turns(runs, rounds).items():
        median = statistics.median(times)
        rows.append(
            {
                "batch": batch,
                "seconds_of_audio": length / sizes.sample_rate,
                "median_seconds": median,
                "fastest_seconds": min(times),
                "slowest_seconds": max(times),
                "samples_per_second": batch * length / median,
                "microseconds_per_step": 1e6 * median / length,
            }
        )
    per_step = {
        (row["batch"], row["seconds_of_audio"]): row["microseconds_per_step"]
        for row in rows
    }
    ours = per_step[sizes.batch, sizes.seconds[0]]
    naive_step = 1e6 * statistics.median(of_naive["naive"])
    return {
        "receptive_field": network.receptive_field,
        "draws": rows,
        "naive_microseconds_per_step": naive_step,
        "naive_over_queued": naive_step / ours,
        "step_of_longest_over_shortest": per_step[sizes.batch, sizes.seconds[-1]]
        / ours,
    }


def print_report(sizes: Sizes, results: dict) -> None:
    """Print a table and the ratios below it."""
    console = Console()
    table = Table(
        title=f"Queued WaveNet: {sizes.stacks} x {sizes.layers} layers, {sizes.units} "
        f"units, receptive field {results['receptive_field']:,}, "
        f"{jax.devices()[0].device_kind}"
    )
    for header in ("audio", "batch", "samples/s", "s/draw", "spread", "us/step"):
        table.add_column(header, justify="right")
    for row in results["draws"]:
        table.add_row(
            f"{row['seconds_of_audio']:.0f} s",
            str(row["batch"]),
            f"{row['samples_per_second']:,.0f}",
            f"{row['median_seconds']:.2f}",
            f"{row['fastest_seconds']:.2f}-{row['slowest_seconds']:.2f}",
            f"{row['microseconds_per_step']:.0f}",
        )
    console.print(table)
    console.print(
        f"naive, batch {sizes.batch}: "
        f"{results['naive_microseconds_per_step']:,.0f} us a step (median of "
        f"{sizes.naive_samples} single steps): "
        f"{results['naive_over_queued']:.0f} times the queued sampler"
    )
    console.print(
        f"a step of {sizes.seconds[-1]} s of audio takes "
        f"{results['step_of_longest_over_shortest']:.2f} times one of "
        f"{sizes.seconds[0]} s"
    )


if __name__ == "__main__":
    timing.main(
        __doc__,
        full=Sizes(),
        quick=QUICK,
        measure=measure,
        print_report=print_report,
        rounds=3,
    )
