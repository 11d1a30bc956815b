"""A run from nothing to a report: six stages, each of which can be resumed.

    vqvae -> codes -> prior -> samples -> evaluate -> report

Each stage reads what the stages before it left in the workdir, and leaves its own
result there whole or not at all. What is finished is not done again.
"""

import contextlib
import dataclasses
import io
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import rich
import rich.progress

from vqvae_jax.data import codes as codes_lib
from vqvae_jax.data.dataset import Dataset, open_dataset
from vqvae_jax.data.source import Source
from vqvae_jax.errors import require
from vqvae_jax.evaluation import usage
from vqvae_jax.evaluation.results import measure
from vqvae_jax.experiment import Experiment
from vqvae_jax.report import figures
from vqvae_jax.report.build import build
from vqvae_jax.training import sharding
from vqvae_jax.training.ending import is_marked
from vqvae_jax.training.loop import Run, fit
from vqvae_jax.workdir import SPLITS, Workdir, fingerprint, restore, restore_prior


class Context(NamedTuple):
    """What every stage is given."""

    workdir: Workdir
    experiment: Experiment
    dataset: Dataset


class Stage(NamedTuple):
    """A stage: how to see that it is finished, and how to finish it."""

    is_done: Callable[[Workdir, Experiment], bool]
    run: Callable[[Context], None]


def run(config: Mapping[str, Any], workdir: str, stages: Sequence[str] = ()) -> None:
    """Bring a workdir to the end of the given stages, all by default.

    Args:
      config: an experiment's config as nested dicts.
      workdir: made if it does not exist; a run that was interrupted there goes on.
      stages: names out of `STAGES`.

    Raises:
      UserError: the config, the data or the workdir cannot be used.
    """
    experiment = Experiment.from_config(config)
    for name in stages:
        require(
            name in STAGES,
            f"--stages: {name!r} does not exist; there are {', '.join(STAGES)}",
        )
    chosen = [name for name in STAGES if not stages or name in stages]
    for key, batch_size in _batch_sizes(experiment):
        sharding.require_divisible(batch_size, sharding.data_mesh(), key=key)
    place = Workdir(workdir)
    place.require_usable(config)
    pending = _pending(chosen, place, experiment)
    if not pending:
        rich.print(f"{workdir}: {', '.join(chosen)} finished before; nothing to do")
        return
    context = Context(place, experiment, open_dataset(experiment.data))
    # Written last: a config in a workdir is one that a run has started with.
    place.write_json(place.config, config)
    for name in pending:
        rich.print(f"[bold]{name}[/bold]")
        STAGES[name].run(context)


def _pending(
    chosen: Sequence[str], workdir: Workdir, experiment: Experiment
) -> list[str]:
    """Return the stages to run: the first unfinished one and all that read from it."""
    for i, name in enumerate(chosen):
        if not STAGES[name].is_done(workdir, experiment):
            return list(chosen[i:])
    return []


def _train_vqvae(context: Context) -> None:
    workdir, experiment, dataset = context
    config = experiment.training
    train = experiment.train_batches(dataset.train, config, augment=True)
    init = experiment.train_batches(dataset.train, config)
    batches = [next(init) for _ in range(config.init_batches)]
    run = Run(
        stage="vqvae",
        workdir=workdir.path,
        seed=experiment.seed,
        train=train,
        validation=lambda: experiment.eval_batches(dataset.validation),
        init_batch=jax.tree.map(lambda *arrays: np.concatenate(arrays), *batches),
    )
    fit(experiment.model, config, run)


def _extract_codes(context: Context) -> None:
    """Encode each split once, in order, and keep the codes as array_record."""
    workdir, experiment, dataset = context
    model, params = restore(workdir.path)
    mesh = sharding.data_mesh()
    params = jax.device_put(params, sharding.replicated(mesh))
    encode = jax.jit(model.encode, out_shardings=sharding.replicated(mesh))

    def encoded(source: Source) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for batch in experiment.eval_batches(source):
            codes = encode(params, sharding.put_batch(batch, mesh)["image"])
            yield np.asarray(codes)[batch["mask"]], batch["label"][batch["mask"]]

    digest = fingerprint(params)
    for split in SPLITS:
        source = getattr(dataset, split)
        codes_lib.write_codes(
            workdir.codes_directory(split),
            batches=encoded(source),
            num_codes=model.num_codes,
            class_names=dataset.class_names,
            fingerprint=digest,
        )


def _train_prior(context: Context) -> None:
    """Fit the PixelCNN to the codes; its sizes and classes come from their metadata."""
    workdir, experiment, _ = context
    train, validation = workdir.codes("train"), workdir.codes("validation")
    facts = dataclasses.asdict(train.metadata)
    if workdir.prior.exists():
        before = workdir.read_json(workdir.prior)["fingerprint"]
        require(
            before == facts["fingerprint"],
            f"{workdir.checkpoints('prior')} was trained on the codes of another "
            f"VQ-VAE ({before}, now {facts['fingerprint']}): remove it and "
            f"{workdir.prior} to train a prior for this one",
        )
    collapse = usage.collapse(usage.count_codes(train, num_codes=facts["num_codes"]))
    if collapse:
        warnings.warn(collapse, stacklevel=2)
    workdir.write_json(workdir.prior, facts)
    prior = experiment.make_prior(
        facts["grid"], facts["num_codes"], facts["class_names"]
    )
    config = experiment.prior_training
    run = Run(
        stage="prior",
        workdir=workdir.path,
        seed=experiment.seed + 1,
        train=experiment.train_batches(train, config),
        validation=lambda: experiment.eval_batches(validation),
        init_batch=next(experiment.train_batches(train, config)),
    )
    fit(prior, config, run)


def _draw_samples(context: Context) -> None:
    """Draw class-conditional codes, decode them, and keep images, labels and codes."""
    workdir, experiment, dataset = context
    config = experiment.samples
    model, params = restore(workdir.path)
    prior, prior_params = restore_prior(workdir.path)
    workdir.require_same_codebook(params)
    mesh = sharding.data_mesh()
    splits_evenly = config.batch_size % mesh.size == 0
    params, prior_params = jax.device_put(
        (params, prior_params), sharding.replicated(mesh)
    )
    classes = max(1, prior.num_classes)
    num_batches = math.ceil(config.num_samples / config.batch_size)
    labels = np.arange(num_batches * config.batch_size, dtype=np.int32) % classes
    keys = jax.random.split(jax.random.key(experiment.seed + 2), num_batches)
    decode = jax.jit(model.decode)
    drawn = []
    with _rows_of_codes(num_batches * prior.grid[0]) as advance:
        for key, batch in zip(keys, np.split(labels, num_batches), strict=True):
            if splits_evenly:
                batch = jax.device_put(batch, sharding.split_batch(mesh))
            codes = prior.sample(
                prior_params,
                key,
                labels=batch if prior.num_classes else None,
                num_samples=config.batch_size,
                progress=advance,
                **config.of_draw,
            )
            drawn.append(jax.device_get((decode(params, codes), codes)))
    images, codes = (
        np.concatenate(x)[: config.num_samples] for x in zip(*drawn, strict=True)
    )
    labels = labels[: config.num_samples]
    columns = figures.columns_for(images.shape[1:])
    for label in np.unique(labels):
        row = figures.image_grid(images[labels == label][:columns], columns=columns)
        name = _file_name(dataset.class_names, int(label))
        workdir.write_bytes(workdir.pictures / f"{name}.png", row)
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        images=images,
        labels=labels,
        codes=codes,
        class_names=np.array(dataset.class_names, dtype=str),
    )
    workdir.write_bytes(workdir.samples, buffer.getvalue())


@contextlib.contextmanager
def _rows_of_codes(total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar on a terminal, and give what is to be called after each row."""
    bar = rich.progress.Progress(
        *rich.progress.Progress.get_default_columns(),
        disable=not rich.get_console().is_terminal,
    )
    task = bar.add_task("rows of codes", total=total)
    with bar:
        yield lambda row: bar.advance(task)


def _evaluate(context: Context) -> None:
    """Measure on the test split, which nothing before has seen."""
    workdir, experiment, dataset = context
    workdir.write_json(workdir.results, measure(workdir, experiment, dataset))


def _write_report(context: Context) -> None:
    workdir, experiment, dataset = context
    workdir.write_bytes(workdir.report, build(workdir, experiment, dataset).encode())
    rich.print(f"report: {workdir.report}")


STAGES = {
    "vqvae": Stage(lambda w, e: is_marked(w.checkpoints("vqvae")), _train_vqvae),
    "codes": Stage(
        lambda w, e: all(w.codes_directory(s).is_dir() for s in SPLITS), _extract_codes
    ),
    "prior": Stage(lambda w, e: is_marked(w.checkpoints("prior")), _train_prior),
    "samples": Stage(lambda w, e: w.samples.exists(), _draw_samples),
    "evaluate": Stage(lambda w, e: w.results.exists(), _evaluate),
    "report": Stage(lambda w, e: w.report.exists(), _write_report),
}


def _batch_sizes(experiment: Experiment) -> Iterator[tuple[str, int]]:
    yield "training.batch_size", experiment.training.batch_size
    yield "prior_training.batch_size", experiment.prior_training.batch_size
    yield "evaluation.batch_size", experiment.evaluation.batch_size


def _file_name(class_names: Sequence[str], label: int) -> str:
    name = class_names[label] if class_names else "samples"
    safe = "".join(c if c.isalnum() or c in "-_" else "_" for c in name)
    return f"{label:04d}_{safe}"[:100]
