"""Draw samples from a trained model, and keep them."""

import contextlib
import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np
import rich
import rich.progress

from vqvae_jax.models.pixelcnn import PixelModel
from vqvae_jax.pipeline.stage import Context
from vqvae_jax.report import image_grid
from vqvae_jax.runtime import distributed
from vqvae_jax.training import sharding
from vqvae_jax.workdir import Workdir, restore, restore_prior

# Told of each row that is drawn, where anybody looks.
Progress = Callable[[int], None] | None
# Key, labels [B] and progress -> arrays, `images` among them.
Draw = Callable[[jax.Array, np.ndarray, Progress], dict[str, np.ndarray]]

# Rows of a grid that is slow enough for progress inside a batch.
_LONG_GRID = 16


def sample_codes(context: Context) -> None:
    """Draw class-conditional codes from the prior, decode them, and keep both."""
    workdir, config = context.workdir, context.experiment.samples
    model, params = restore(workdir.path)
    prior, prior_params = restore_prior(workdir.path)
    workdir.require_same_codebook(params)
    mesh = sharding.data_mesh()
    splits_evenly = config.batch_size % mesh.size == 0
    params, prior_params = sharding.put_replicated((params, prior_params), mesh)
    decode = jax.jit(model.decode)

    def draw(key, labels, progress):
        if splits_evenly:
            own = {"label": distributed.own_rows(labels)}
            labels = sharding.put_batch(own, mesh)["label"]
        codes = prior.sample(
            prior_params,
            key,
            labels=labels if prior.num_classes else None,
            num_samples=config.batch_size,
            progress=progress,
            **config.of_draw,
        )
        return distributed.whole({"images": decode(params, codes), "codes": codes})

    keep(context, draw, classes=prior.num_classes, rows=prior.grid[0])


def sample_images(context: Context) -> None:
    """Draw images from a model that needs no prior, and keep them."""
    model, params = restore(context.workdir.path)
    if isinstance(model, PixelModel):
        options = context.experiment.samples.without_labels

        def draw(key, labels, progress):
            images = model.sample(
                params,
                key,
                num_samples=len(labels),
                progress=progress,
                **options,
            )
            return {"images": jax.device_get(images)}

        keep(context, draw, classes=0, rows=model.image_shape[0])
        return

    sample = jax.jit(model.sample, static_argnames="num_samples")

    def draw_at_once(key, labels, progress):
        images = jax.device_get(sample(params, key, num_samples=len(labels)))
        return {"images": images}

    keep(context, draw_at_once, classes=0, rows=1)


def keep(context: Context, draw: Draw, *, classes: int, rows: int) -> None:
    """Draw batch by batch and write `samples.npz`, and a picture of each class."""
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
    """Show a bar on a terminal; give what is called after each row and each batch."""
    is_shown = rich.get_console().is_terminal and distributed.is_first()
    bar = rich.progress.Progress(
        *rich.progress.Progress.get_default_columns(), disable=not is_shown
    )
    task = bar.add_task("samples", total=num_batches * rows)
    finished = itertools.count(rows, rows)
    # A program that calls back is not kept on disk, so that only long grids have one;
    # and several processes must all have the same program.
    calls_back = is_shown and rows >= _LONG_GRID and jax.process_count() == 1
    with bar:
        yield (
            (lambda row: bar.advance(task)) if calls_back else None,
            lambda: bar.update(task, completed=next(finished)),
        )


def file_name(class_names: Sequence[str], label: int) -> str:
    name = class_names[label] if class_names else "samples"
    safe = "".join(c if c.isalnum() or c in "-_" else "_" for c in name)
    # File systems count bytes.
    return f"{label:04d}_{safe}".encode()[:100].decode(errors="ignore")
