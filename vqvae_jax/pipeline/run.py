"""A run from nothing to a report: stages, each of which can be resumed.

    vqvae -> codes -> its second stage -> samples -> evaluate -> report
    vae, vimco, pixelcnn or gan -> samples -> evaluate -> report
    speech -> codes -> sequence_prior, if there is one -> samples -> evaluate -> report

Each stage reads what the stages before it left in the workdir, and leaves its own
result there whole or not at all. What is finished is not done again.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import rich
from rich.markup import escape

from vqvae_jax.data.dataset import Dataset, open_dataset
from vqvae_jax.experiment import Experiment
from vqvae_jax.models.second import training_section
from vqvae_jax.pipeline import data_files
from vqvae_jax.pipeline.codes import extract_codes
from vqvae_jax.pipeline.samples import sample_images
from vqvae_jax.pipeline.second import SECOND_STAGES
from vqvae_jax.pipeline.stage import (
    Context,
    Stage,
    last_stages,
    train_model,
)
from vqvae_jax.runtime import distributed, preemption
from vqvae_jax.runtime.errors import require
from vqvae_jax.runtime.locks import locked
from vqvae_jax.tasks.speech.dataset import SpeechDataset, open_speech
from vqvae_jax.training import sharding, weights_and_biases
from vqvae_jax.training.early_stopping import is_marked
from vqvae_jax.workdir import Workdir, without_machine_keys


def run(
    config: Mapping[str, Any],
    workdir: str,
    stages: Sequence[str] = (),
    *,
    command: str = "",
) -> None:
    """Bring a workdir to the end of the given stages, all by default.

    Args:
      config: an experiment's config as nested dicts.
      workdir: made if it does not exist; a run that was interrupted there goes on.
      stages: some of those that the model's kind has.
      command: what was typed to start it, kept for the report.

    Raises:
      UserError: the config, the data or the workdir cannot be used.
    """
    weights_and_biases.require_available()
    experiment = Experiment.from_config(config)
    all_stages = stages_of(experiment.kind, experiment.second)
    for name in stages:
        require(
            name in all_stages,
            f"--stages: {name!r} does not exist; there are {', '.join(all_stages)}",
        )
    chosen = [name for name in all_stages if not stages or name in stages]
    for key, batch_size, accumulate in _batch_sizes(experiment):
        sharding.require_divisible(
            batch_size, sharding.data_mesh(), key=key, accumulate=accumulate
        )
    distributed.require_same(
        repr((without_machine_keys(config), chosen)),
        "the processes of this run have different configs or --stages: start all of "
        "them with the same command",
    )
    place = Workdir(workdir)
    place.require_usable(config)
    with locked(place.path):
        pending = _pending(chosen, all_stages, place)
        files = distributed.in_turn(lambda: _files(place, experiment))
        if not pending:
            done = f"{workdir}: {', '.join(chosen)} finished before; nothing to do"
            rich.print(escape(done))
            return
        context = _opened(place, experiment)
        require_labels(experiment, context.dataset)
        data_files.keep(place, files)
        # Written last: a config in a workdir is one that a run has started with.
        place.begin(config, command=command)
        distributed.barrier("config")
        for name in pending:
            preemption.check()
            rich.print(f"[bold]{name}[/bold]")
            all_stages[name].run(context)
            distributed.barrier(name)


def _files(workdir: Workdir, experiment: Experiment) -> data_files.Facts | None:
    """Return the files of a folder of data, seen to be those of the run."""
    files = data_files.facts_of(experiment.data)
    data_files.require_same(workdir, files)
    return files


def require_labels(experiment: Experiment, dataset: Dataset | SpeechDataset) -> None:
    """Raise UserError where what is asked of the samples needs labels in the data."""
    classes = len(getattr(dataset, "class_names", ()))
    guidance = experiment.samples.guidance
    is_classified = experiment.evaluation.classify_samples
    for key, value, without, least in (
        ("samples.guidance", guidance, 1.0, 1),
        # Of a single class there is nothing to tell.
        ("evaluation.classify_samples", is_classified, False, 2),
    ):
        require(
            value == without or classes >= least,
            f"{key}={value} needs {'two classes' if classes else 'labels'}, and the "
            f"data has {classes or 'none'}: set it to {without}, or take data with "
            "classes",
        )


def _opened(workdir: Workdir, experiment: Experiment) -> Context:
    """Open the data; a model of speech is told who speaks in them."""
    if experiment.kind != "speech":
        dataset = distributed.in_turn(lambda: open_dataset(experiment.data))
        return Context(workdir, experiment, dataset)
    dataset = distributed.in_turn(lambda: open_speech(experiment.data))
    experiment = experiment.with_speakers(dataset.speaker_names)
    workdir.keep_speakers(dataset.speaker_names)
    return Context(workdir, experiment, dataset)


def stages_of(kind: str, second: str | None = "prior") -> dict[str, Stage]:
    """Return the stages of a kind of model, by name and in order.

    `second` is what follows a VQ-VAE, and may follow one of speech; the other kinds are
    followed by nothing.
    """
    if kind == "speech":
        # Here: what measures voices takes seconds to import, which images do not need.
        from vqvae_jax.tasks.speech.stages import stages_of_speech

        return stages_of_speech(second)
    train = Stage(lambda workdir: is_marked(workdir.checkpoints(kind)), train_model)
    if kind != "vqvae":
        samples = Stage(lambda workdir: workdir.samples.exists(), sample_images)
        return {kind: train, "samples": samples, **last_stages()}
    row = SECOND_STAGES[second]
    return {
        "vqvae": train,
        "codes": Stage(Workdir.has_codes, extract_codes),
        **row.stages,
        "samples": Stage(lambda workdir: workdir.samples.exists(), row.sample),
        **last_stages(row.measure, row.sections),
    }


def _pending(
    chosen: Sequence[str], stages: Mapping[str, Stage], workdir: Workdir
) -> list[str]:
    """Return the stages to run: the first unfinished one and all that read from it."""
    for i, name in enumerate(chosen):
        if not stages[name].is_done(workdir):
            return list(chosen[i:])
    return []


def _batch_sizes(experiment: Experiment) -> Iterator[tuple[str, int, int]]:
    """Return (key, examples at once, parts that they are taken in)."""
    sections = {"training": experiment.training}
    if experiment.second is not None:
        sections[training_section(experiment.second)] = experiment.second_training
    for name, training in sections.items():
        yield f"{name}.batch_size", training.batch_size, training.accumulate
    yield "evaluation.batch_size", experiment.evaluation.batch_size, 1
