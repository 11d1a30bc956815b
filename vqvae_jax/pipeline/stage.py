"""What a stage is, what it is given, and the stages that runs of any kind have."""

import functools
import io
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import rich
from rich.markup import escape

from vqvae_jax.data.dataset import Dataset
from vqvae_jax.experiment import Experiment
from vqvae_jax.pipeline.evaluate import MeasureSecond, measure
from vqvae_jax.report.build import Sections, build
from vqvae_jax.runtime import distributed
from vqvae_jax.tasks.speech.dataset import SpeechDataset
from vqvae_jax.training.evaluate import HostBatch
from vqvae_jax.training.loop import DataIterator, Run, fit
from vqvae_jax.workdir import Workdir


class Context(NamedTuple):
    """What every stage is given."""

    workdir: Workdir
    experiment: Experiment
    dataset: Dataset | SpeechDataset


class Stage(NamedTuple):
    """A stage: how to see that it is finished, and how to finish it."""

    is_done: Callable[[Workdir], bool]
    run: Callable[[Context], None]


def train_model(context: Context) -> None:
    """Fit the model to the images; the stage has the name of the model's kind."""
    _, experiment, dataset = context
    fit_model(
        context,
        train=experiment.train_batches(
            dataset.train,
            experiment.training,
            random_flip=experiment.data.random_flip,
        ),
        init_batch=experiment.init_batch(dataset.train, experiment.training),
        validation=lambda: experiment.eval_batches(dataset.validation),
    )


def fit_model(
    context: Context,
    *,
    train: DataIterator,
    init_batch: HostBatch,
    validation: Callable[[], Iterable[HostBatch]],
) -> None:
    """Fit the model to these batches; `init_batch` initialises it."""
    workdir, experiment, _ = context
    run = Run(
        stage=experiment.kind,
        workdir=workdir.path,
        seed=experiment.seed,
        train=train,
        validation=validation,
        init_batch=init_batch,
    )
    fit(experiment.model, experiment.training, run)


def evaluate(context: Context, *, measure_second: MeasureSecond | None = None) -> None:
    """Measure on the test split, which nothing before has seen."""
    workdir, experiment, dataset = context
    results, bits = measure(workdir, experiment, dataset, measure_second=measure_second)
    if bits:
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **bits)
        workdir.write_bytes(workdir.test_bits, buffer.getvalue())
    # Last: with the results the stage is finished.
    workdir.write_json(workdir.results, results)


def write_page(context: Context, *, build: Callable[..., str]) -> None:
    """Write the run's page."""
    workdir, experiment, dataset = context
    if not distributed.is_first():
        return
    page = build(workdir, experiment, dataset)
    workdir.write_bytes(workdir.report, page.encode())
    rich.print(escape(f"report: {workdir.report}"))


def last_stages(
    measure_second: MeasureSecond | None = None, show_second: Sections | None = None
) -> dict[str, Stage]:
    """Return the stages that any run ends with, told of what a VQ-VAE's second adds."""
    return {
        "evaluate": Stage(
            lambda workdir: workdir.results.exists(),
            functools.partial(evaluate, measure_second=measure_second),
        ),
        "report": Stage(
            lambda workdir: workdir.report.exists(),
            functools.partial(
                write_page, build=functools.partial(build, of_second=show_second)
            ),
        ),
    }
