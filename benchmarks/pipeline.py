"""Does training wait for its data? Grain and TFDS beside the training step.

    TFDS_DATA_DIR=... python benchmarks/pipeline.py [--json pipeline.json]

First the images a second that the input pipeline reads, decoded as in the first epoch
and out of memory as later, beside those that a training step takes. Then the project's
own loop trains for its first steps. It logs each step, so that it waits for the device
each time: while it then waits for data, the device is idle.
"""

import dataclasses
import itertools
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # Run from a checkout, as printed.

from benchmarks import command, paper_model, timing
from benchmarks.paper_model import Architecture
from benchmarks.tables import Outcome, Row, Table
from vqvae_jax.data import TrainBatches, train_batches
from vqvae_jax.data.source import Source, cached
from vqvae_jax.data.tfds import open_tfds
from vqvae_jax.training.config import TrainingConfig
from vqvae_jax.training.evaluate import HostBatch
from vqvae_jax.training.loop import Run, fit

# The loop asks for three batches before its first step, which it compiles.
_BEFORE = 3


@dataclasses.dataclass(frozen=True)
class Sizes(Architecture):
    """The model's, the set, the batches read at a time, and the steps in the loop."""

    name: str = "cifar10"
    batches: int = 40
    steps: int = 12


TINY = Sizes(
    **dataclasses.asdict(paper_model.TINY) | {"batch": 8},
    name="digits",
    batches=2,
    steps=6,
)


class Watched(Iterator[HostBatch]):
    """Batches, and the seconds at which each was asked for and given."""

    def __init__(self, batches: TrainBatches):
        self._batches = batches
        self.asked: list[float] = []
        self.given: list[float] = []

    def __next__(self) -> HostBatch:
        self.asked.append(time.perf_counter())
        batch = next(self._batches)
        self.given.append(time.perf_counter())
        return batch

    def get_state(self) -> dict:
        """Return the place in the data."""
        return self._batches.get_state()

    def set_state(self, state: dict) -> None:
        """Go to a place in the data."""
        self._batches.set_state(state)


def measure(sizes: Sizes, rounds: int) -> Iterator[Table]:
    """Read in turns with a training step, then train in the loop."""
    if not _is_prepared(sizes.name):
        note = f"{sizes.name} is not prepared where TFDS_DATA_DIR says"
        yield Table("Input pipeline", [Row(sizes.name, note=note)])
        return
    with tempfile.TemporaryDirectory() as directory:
        splits = open_tfds(
            sizes.name,
            # Digits are made on the spot, which shall leave nothing behind.
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
    return train_batches(source, batch_size=sizes.batch, seed=0)


def _reading(sizes: Sizes, source: Source, rounds: int) -> Table:
    def reads(source: Source) -> timing.Run:
        def read():
            batches = _batches(sizes, source)
            for _ in range(sizes.batches):
                next(batches)
            batches.close()

        return read

    # The first call, which does not count, fills the memory.
    runs = {
        "decoding": reads(source),
        "from memory": reads(cached(source)),
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
    return Table(title, rows, [Outcome("decoding over the training step", speed)])


def _training(sizes: Sizes, source: Source, workdir: Path) -> Table:
    """Train in the loop; how long is it between batches, and how long until each?"""
    watched = Watched(_batches(sizes, source))
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
        train=watched,
        validation=lambda: [batch],
        init_batch=batch,
    )
    fit(paper_model.model(sizes), config, run)
    asked, given = watched.asked[_BEFORE:], watched.given[_BEFORE:]
    steps = [after - before for before, after in itertools.pairwise(asked)]
    waits = [after - before for before, after in zip(asked, given, strict=True)]
    idle = [wait / step for wait, step in zip(waits, steps, strict=False)]
    rows = [Row("a step of the loop", steps), Row("its wait for a batch", waits)]
    outcome = Outcome("part of a step that waits for data", idle, 0.02, at_most=True)
    return Table(
        "Training in the loop, images seen for the first time", rows, [outcome]
    )


BENCHMARK = command.Benchmark("pipeline", measure, Sizes(), TINY, rounds=5)

if __name__ == "__main__":
    command.main(__doc__, [BENCHMARK])
