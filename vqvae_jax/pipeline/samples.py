"""Draw samples of a trained model batch by batch, and write them to the workdir."""

import contextlib
import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np
import rich
import rich.progress

from vqvae_jax.pipeline.run import Context
from vqvae_jax.report import image_grid
from vqvae_jax.runtime import distributed
from vqvae_jax.workdir import Workdir

# Called after each row is drawn; None if no progress is displayed.
Progress = Callable[[int], None] | None
# Key, labels [B] and progress -> arrays, `images` among them.
Draw = Callable[[jax.Array, np.ndarray, Progress], dict[str, np.ndarray]]

# Grids with fewer rows show progress per batch only.
_LONG_GRID = 16


def draw_samples(context: Context, draw: Draw, *, classes: int, rows: int) -> None:
    """Draw samples; write `samples.npz` and an image grid of each class.

    Args:
      context: input of the stage.
      draw: draws one batch.
      classes: number of labels, which the samples share evenly; 0 without labels.
      rows: rows of a sample that `draw` reports to its progress callback.
    """
    workdir, experiment, dataset = context
    config = experiment.samples
    class_names = dataset.class_names if classes else ()
    num_batches = math.ceil(config.num_samples / config.batch_size)
    labels = np.arange(num_batches * config.batch_size, dtype=np.int32)
    labels %= max(1, classes)
    keys = jax.random.split(jax.random.key(experiment.seed + 2), num_batches)
    drawn, seconds = [], []
    with rows_to_draw(num_batches, rows) as (progress, finish_batch):
        for key, batch in zip(keys, np.split(labels, num_batches), strict=True):
            start = time.perf_counter()
            drawn.append(draw(key, batch, progress))
            seconds.append(time.perf_counter() - start)
            finish_batch()
    arrays = {
        name: np.concatenate([batch[name] for batch in drawn])[: config.num_samples]
        for name in drawn[0]
    }
    # The first batch includes the compilation.
    speed = config.batch_size / np.median(seconds[1:]) if seconds[1:] else np.nan
    _write(workdir, arrays, labels[: config.num_samples], class_names, speed)


def _write(workdir: Workdir, arrays, labels, class_names, speed) -> None:
    images = arrays["images"]
    columns = image_grid.columns_for(images.shape[1:])
    for label in np.unique(labels):
        row = image_grid.image_grid(images[labels == label][:columns], columns=columns)
        name = file_name(class_names, int(label))
        workdir.write_bytes(workdir.pictures / f"{name}.png", row)
    workdir.write_arrays(
        workdir.samples,
        **arrays,
        labels=labels,
        class_names=np.array(class_names, dtype=str),
        samples_per_second=speed,
    )


@contextlib.contextmanager
def rows_to_draw(
    num_batches: int, rows: int
) -> Iterator[tuple[Progress, Callable[[], None]]]:
    """Show a progress bar on a terminal; yield callbacks for a row and a batch."""
    is_shown = rich.get_console().is_terminal and distributed.is_first()
    bar = rich.progress.Progress(
        *rich.progress.Progress.get_default_columns(), disable=not is_shown
    )
    task = bar.add_task("samples", total=num_batches * rows)
    finished = itertools.count(rows, rows)
    # JAX does not cache programs with callbacks on disk, so only long grids have one.
    # All processes must run the same program, so several processes have none.
    calls_back = is_shown and rows >= _LONG_GRID and jax.process_count() == 1
    with bar:
        yield (
            (lambda row: bar.advance(task)) if calls_back else None,
            lambda: bar.update(task, completed=next(finished)),
        )


def file_name(class_names: Sequence[str], label: int) -> str:
    """Return the file name, without suffix, of the samples of a label."""
    return f"{label:04d}_{safe_name(class_names[label] if class_names else 'samples')}"


def safe_name(name: str) -> str:
    """Return a name without characters that file systems forbid, and not too long."""
    safe = "".join(c if c.isalnum() or c in "-_" else "_" for c in name)
    # File systems limit bytes, not characters.
    return safe.encode()[:95].decode(errors="ignore")
