"""Throughput of the input pipeline (Grain and TFDS) compared with the training step.

    TFDS_DATA_DIR=... python benchmarks/pipeline.py [--json pipeline.json]

The first table compares the images per second of the input pipeline, decoded as in the
first epoch and cached as in later ones, with those of the training step. The second one
runs the first steps of the training loop and reports how long each waits for data. The
loop logs every step and so waits for the device, which is idle during the data wait.
"""

import dataclasses
import itertools
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # Allow running as a script.

from benchmarks import command, paper_model, timing
from benchmarks.paper_model import Architecture
from benchmarks.report import Outcome, Row, Table
from vqvae_jax.data import TrainBatches
from vqvae_jax.data.source import Source, cached
from vqvae_jax.data.tfds import open_tfds
from vqvae_jax.training.config import TrainingConfig
from vqvae_jax.training.loop import HostBatch, Run, fit

# The loop requests three batches before its first step, which includes compilation.
_SKIPPED = 3


@dataclasses.dataclass(frozen=True)
class Sizes(Architecture):
    """The model, the data set, batches per timed call, and steps of the loop."""

    name: str = "cifar10"
    batches: int = 40
    steps: int = 12


TINY = Sizes(
    **dataclasses.asdict(paper_model.TINY) | {"batch": 8},
    name="digits",
    batches=2,
    steps=6,
)


class TimedBatches(Iterator[HostBatch]):
    """Batches, and the times in seconds at which each was requested and received."""

    def __init__(self, batches: TrainBatches):
        self._batches = batches
        self.whole, self.gather = batches.whole, batches.gather
        self.requested: list[float] = []
        self.received: list[float] = []

    def __next__(self) -> HostBatch:
        self.requested.append(time.perf_counter())
        batch = next(self._batches)
        self.received.append(time.perf_counter())
        return batch

    def get_state(self) -> dict:
        """Return the position in the data."""
        return self._batches.get_state()

    def set_state(self, state: dict) -> None:
        """Restore a position in the data."""
        self._batches.set_state(state)


def measure(sizes: Sizes, rounds: int) -> Iterator[Table]:
    """Time reading and training steps in turns, then run the training loop."""
    if not _is_prepared(sizes.name):
        note = f"{sizes.name} is not prepared in TFDS_DATA_DIR"
        yield Table("Input pipeline", [Row(sizes.name, note=note)])
        return
    with tempfile.TemporaryDirectory() as directory:
        splits = open_tfds(
            sizes.name,
            # Digits are prepared on use; keep them in the temporary directory.
            data_dir=directory if sizes.name == "digits" else "",
            image_size=sizes.side,
            channels=3,
        )
        source = splits.sources["train"]
        yield _reading(sizes, source, rounds)
        yield _training(sizes, source, Path(directory))


def _is_prepared(name: str) -> bool:
    import tensorflow_datasets as tfds

    return name == "digits" or tfds.builder(name).data_path.exists()


def _batches(sizes: Sizes, source: Source) -> TrainBatches:
    return TrainBatches(source, batch_size=sizes.batch, seed=0)


def _reading(sizes: Sizes, source: Source, rounds: int) -> Table:
    def reads(source: Source) -> timing.Run:
        def read():
            batches = _batches(sizes, source)
            for _ in range(sizes.batches):
                next(batches)
            batches.close()

        return read

    # The warm-up call fills the cache.
    runs = {
        "decoding": reads(source),
        "cached": reads(cached(source)),
        "training step": paper_model.training_step(sizes).run,
    }
    images = dict.fromkeys(runs, sizes.batch * sizes.batches)
    images["training step"] = sizes.batch
    seconds = timing.in_turns(runs, rounds)
    rows = [
        Row(
            name,
            times,
            {"images_per_second": images[name] / timing.spread(times).median},
        )
        for name, times in seconds.items()
    ]
    speed = [
        sizes.batches * ratio
        for ratio in timing.ratios(seconds["training step"], seconds["decoding"])
    ]
    title = f"Reading {sizes.name}, batch {sizes.batch}"
    return Table(title, rows, [Outcome("decoding / training step, images/s", speed)])


def _training(sizes: Sizes, source: Source, workdir: Path) -> Table:
    """Run the training loop; measure its steps and its waits for batches."""
    timed = TimedBatches(_batches(sizes, source))
    config = TrainingConfig(
        steps=sizes.steps,
        batch_size=sizes.batch,
        log_every=1,
        checkpoint_every=sizes.steps,
    )
    batch = next(_batches(sizes, source))
    run = Run(
        stage="vqvae",
        workdir=workdir,
        seed=0,
        train=timed,
        validation=lambda: [batch],
        init_batch=batch,
    )
    fit(paper_model.model(sizes), config, run)
    requested = timed.requested[_SKIPPED:]
    received = timed.received[_SKIPPED:]
    steps = [after - before for before, after in itertools.pairwise(requested)]
    waits = [after - before for before, after in zip(requested, received, strict=True)]
    idle = [wait / step for wait, step in zip(waits, steps, strict=False)]
    rows = [Row("step", steps), Row("wait for a batch", waits)]
    outcome = Outcome("fraction of a step spent waiting", idle, 0.02, at_most=True)
    return Table("Training loop, first epoch", rows, [outcome])


BENCHMARK = command.Benchmark("pipeline", measure, Sizes(), TINY, rounds=5)

if __name__ == "__main__":
    command.main(__doc__, [BENCHMARK])
