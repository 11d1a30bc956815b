"""Sampling speed of the PixelCNN: the cached sampler compared with the naive one.

    python benchmarks/sampling.py [--json sampling.json]

The naive sampler evaluates the whole network for each code. It is timed for one code
per round and scaled to the whole grid, since a 32x32 grid would take most of an hour.
Memory is XLA's count of temporary bytes of the compiled program, without inputs and
outputs.
"""

import dataclasses
import functools
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp

sys.path.insert(0, str(Path(__file__).parents[1]))  # Allow running as a script.

from benchmarks import command, timing
from benchmarks.report import Outcome, Row, Table
from vqvae_jax import sampling
from vqvae_jax.networks.pixelcnn import PixelCNN


@dataclasses.dataclass(frozen=True)
class Sizes:
    """The network, the batch sizes, and the batch size of the naive sampler."""

    layers: int = 15
    channels: int = 128
    num_codes: int = 512
    side: int = 32
    batch: int = 16
    batches: tuple[int, ...] = (1, 16, 64)
    sides_of_memory: tuple[int, ...] = (32, 64, 128)


TINY = Sizes(2, 8, 16, 4, 2, (1, 2), (4, 8))


def build(sizes: Sizes) -> tuple[PixelCNN, dict]:
    """Return the network with random parameters, whose values do not affect speed."""
    network = PixelCNN(sizes.num_codes, layers=sizes.layers, channels=sizes.channels)
    grid = jnp.zeros((1, 4, 4, 1), jnp.int32)
    shapes = jax.eval_shape(network.init, jax.random.key(0), grid)
    return network, timing.random_params(shapes)


def compiled_sampler(network: PixelCNN, params: dict, batch: int, side: int):
    """Compile the cached sampler for a batch of square grids."""
    draw = functools.partial(sampling.cached, network, shape=(batch, side, side, 1))
    jitted = jax.jit(lambda params, key: draw(params, key))
    return jitted.lower(params, jax.random.key(0)).compile()


def naive_step(network: PixelCNN, params: dict, batch: int, side: int) -> timing.Run:
    """Return a function that draws one code of each grid with the naive sampler."""
    codes = jnp.zeros((batch, side, side, 1), jnp.int32)

    @jax.jit
    def draw(params, key, codes, index):
        logits = network.apply(params, codes).reshape(batch, side * side, -1)
        logits = jax.lax.dynamic_index_in_dim(logits, index, 1, keepdims=False)
        code = jax.random.categorical(key, logits).astype(jnp.int32)
        return codes.reshape(batch, -1).at[:, index].set(code).reshape(codes.shape)

    return timing.waits(draw, params, jax.random.key(0), codes, side)


def measure(sizes: Sizes, rounds: int) -> Iterator[Table]:
    """Time the cached sampler for each batch size, and one naive code, per round."""
    network, params = build(sizes)
    side, key = sizes.side, jax.random.key(0)
    samplers = {
        batch: compiled_sampler(network, params, batch, side) for batch in sizes.batches
    }
    runs: dict = {
        batch: timing.waits(sampler, params, key) for batch, sampler in samplers.items()
    }
    runs["naive"] = naive_step(network, params, sizes.batch, side)
    seconds = timing.in_turns(runs, rounds)
    naive = [side**2 * one_code for one_code in seconds.pop("naive")]
    rows = [
        Row(f"cached, batch {batch}", times, _figures(sizes, batch, times))
        for batch, times in seconds.items()
    ]
    note = f"naive, batch {sizes.batch}, one code x {side**2}"
    rows.append(Row(note, naive, _figures(sizes, sizes.batch, naive)))
    speed = timing.ratios(naive, seconds[sizes.batch])
    title = (
        f"PixelCNN, {sizes.layers} layers x {sizes.channels} channels, "
        f"K = {sizes.num_codes}, grids of {side}x{side}"
    )
    name = f"naive / cached time, batch {sizes.batch}"
    yield Table(title, rows, [Outcome(name, speed, 200.0)])
    yield _memory(sizes, network, params)


def _figures(sizes: Sizes, batch: int, seconds: list[float]) -> dict[str, float]:
    median = timing.spread(seconds).median
    return {
        "samples_per_second": batch / median,
        "microseconds_per_code": 1e6 * median / sizes.side**2 / batch,
    }


def _memory(sizes: Sizes, network: PixelCNN, params: dict) -> Table:
    rows = []
    for side in sizes.sides_of_memory:
        sampler = compiled_sampler(network, params, sizes.batch, side)
        size = sampler.memory_analysis().temp_size_in_bytes
        rows.append(
            Row(f"{side}x{side}", figures={"temporary_mebibytes": size / 2**20})
        )
    return Table(f"Memory of the cached sampler, batch {sizes.batch}", rows)


BENCHMARK = command.Benchmark("sampling", measure, Sizes(), TINY, rounds=3)

if __name__ == "__main__":
    command.main(__doc__, [BENCHMARK])
