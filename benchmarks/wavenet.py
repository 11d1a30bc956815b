"""Sampling speed of the WaveNet: the queued sampler compared with the naive one.

    python benchmarks/wavenet.py [--json wavenet.json]

The naive sampler evaluates the network on a window of the receptive field for each
sample. It is timed for one sample per round, and the ratio compares the times per
sample. The network is conditioned as in the speech model: on a speaker and on features
at 1/64 of the sample rate.
"""

import dataclasses
import functools
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # Allow running as a script.

from benchmarks import command, timing
from benchmarks.report import Outcome, Row, Table
from vqvae_jax.tasks.speech import wavenet
from vqvae_jax.tasks.speech.wavenet import SequenceCondition, WaveNet

SPEAKERS, FEATURES = 109, 64


@dataclasses.dataclass(frozen=True)
class Sizes:
    """The network, and the batch sizes and lengths in samples to draw."""

    stacks: int = 3
    layers: int = 10
    channels: int = 64
    skip_channels: int = 128
    batch: int = 16
    batches: tuple[int, ...] = (1, 16, 64)
    length: int = 4_000
    # Lengths at batch size 1: one and ten seconds of speech.
    lengths_alone: tuple[int, ...] = (16_000, 160_000)


TINY = Sizes(2, 3, 8, 8, 2, (1, 2), 100, (200,))


def build(sizes: Sizes) -> tuple[WaveNet, dict]:
    """Return the network with random parameters, whose values do not affect speed."""
    network = WaveNet(
        num_classes=SPEAKERS,
        feature_channels=FEATURES,
        stacks=sizes.stacks,
        layers=sizes.layers,
        channels=sizes.channels,
        skip_channels=sizes.skip_channels,
    )
    shapes = jax.eval_shape(
        network.init,
        jax.random.key(0),
        jnp.zeros((1, 8), jnp.int32),
        condition_of(1, 8),
    )
    return network, timing.random_params(shapes)


def condition_of(batch: int, length: int) -> SequenceCondition:
    """Return features and speakers for a batch of sequences."""
    features = np.random.default_rng(0).normal(size=(batch, -(-length // 64), FEATURES))
    return SequenceCondition(
        jnp.arange(batch, dtype=jnp.int32), jnp.asarray(features, "float32")
    )


def queued(network: WaveNet, params: dict, batch: int, length: int) -> timing.Run:
    """Compile the queued sampler; return a function that draws one batch."""
    draw = functools.partial(wavenet.queued, network, shape=(batch, length))
    jitted = jax.jit(
        lambda params, key, condition: draw(params, key, condition=condition)
    )
    inputs = params, jax.random.key(0), condition_of(batch, length)
    return timing.waits(jitted.lower(*inputs).compile(), *inputs)


def naive(network: WaveNet, params: dict, batch: int) -> timing.Run:
    """Return a function that draws one sample per sequence with the naive sampler."""
    window = network.receptive_field + 1
    values = jnp.zeros((batch, window), jnp.int32)

    @jax.jit
    def draw(params, key, values, condition):
        logits = network.apply(params, values, condition)[:, -1]
        drawn = jax.random.categorical(key, logits).astype(jnp.int32)
        return jnp.concatenate([values[:, 1:], drawn[:, None]], axis=1)

    condition = condition_of(batch, window)
    return timing.waits(draw, params, jax.random.key(0), values, condition)


def measure(sizes: Sizes, rounds: int) -> list[Table]:
    """Time the queued sampler for each shape, and one naive sample, per round."""
    network, params = build(sizes)
    shapes = [(batch, sizes.length) for batch in sizes.batches]
    shapes += [(1, length) for length in sizes.lengths_alone]
    runs: dict = {shape: queued(network, params, *shape) for shape in shapes}
    runs["naive"] = naive(network, params, sizes.batch)
    seconds = timing.in_turns(runs, rounds)
    one_naive = seconds.pop("naive")
    rows = [
        Row(f"queued, batch {batch}, length {length:,}", times, _figures(times, *shape))
        for shape, times in seconds.items()
        for batch, length in [shape]
    ]
    name = f"naive, batch {sizes.batch}, one sample"
    rows.append(Row(name, one_naive, _figures(one_naive, sizes.batch, 1)))
    one_queued = [s / sizes.length for s in seconds[sizes.batch, sizes.length]]
    outcomes = [
        Outcome(
            f"naive / queued time per sample, batch {sizes.batch}",
            timing.ratios(one_naive, one_queued),
            500.0,
        )
    ]
    title = (
        f"WaveNet, {sizes.stacks} x {sizes.layers} layers, {sizes.channels} channels, "
        f"receptive field {network.receptive_field:,}"
    )
    return [Table(title, rows, outcomes)]


def _figures(seconds: list[float], batch: int, length: int) -> dict[str, float]:
    median = timing.spread(seconds).median
    return {
        "samples_per_second": batch * length / median,
        "microseconds_per_step": 1e6 * median / length,
    }


BENCHMARK = command.Benchmark("wavenet", measure, Sizes(), TINY, rounds=3)

if __name__ == "__main__":
    command.main(__doc__, [BENCHMARK])
