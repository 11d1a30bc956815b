"""Run an experiment from data to a report, in stages that each resume.

    vqvae -> codes -> prior, hierarchy or video -> samples -> evaluate -> report
    vae, vimco, pixelcnn or gan -> samples -> evaluate -> report
    speech -> codes -> sequence_prior (optional) -> samples -> evaluate -> report

Each stage reads the results of earlier stages from the workdir and writes its result
atomically. Finished stages are skipped.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from vqvae_jax import registry
from vqvae_jax.data.source import Source
from vqvae_jax.experiment import Experiment, training_section
from vqvae_jax.pipeline import console, data_files
from vqvae_jax.pipeline.initial import initial_params, require_initial
from vqvae_jax.runtime import distributed, preemption
from vqvae_jax.runtime.errors import require
from vqvae_jax.runtime.locks import locked
from vqvae_jax.runtime.terminal import print_line
from vqvae_jax.training import sharding, weights_and_biases
from vqvae_jax.training.early_stopping import is_marked
from vqvae_jax.training.loop import Run, fit
from vqvae_jax.workdir import Workdir, without_machine_keys


class Context(NamedTuple):
    """The input of every stage.

    Attributes:
      workdir: of the run.
      experiment: of the run, with the model's options that the data decide.
      dataset: an opened data set with splits `train`, `validation` and `test`.
    """

    workdir: Workdir
    experiment: Experiment
    dataset: Any


class Stage(NamedTuple):
    """A stage of a run.

    Attributes:
      is_done: returns whether a workdir contains the stage's result.
      run: writes the result.
    """

    is_done: Callable[[Workdir], bool]
    run: Callable[[Context], None]


class SecondStage(NamedTuple):
    """The part of a run that trains, samples, evaluates and reports models of codes.

    Attributes:
      sample: writes `samples.npz`.
      evaluate: returns a `pipeline.evaluate.SecondResults`; None if the stages of the
        first model evaluate both.
      sections: returns sections of the report; None if the stages of the first model
        report both.
      examples: returns the examples to train on, from the codes of a split and the
        model of codes; by default the codes themselves.
      start: returns the model to train, from the model of codes, the first model and
        its parameters; by default the model of codes.
      stages: stages between training and `samples`.
    """

    sample: Callable[[Context], None]
    evaluate: Callable[[Context], Any] | None = None
    sections: Callable[[Context], list] | None = None
    examples: Callable[..., Source] = lambda codes, model, *, split: codes
    start: Callable[..., Any] = lambda model, before, params: model
    stages: Mapping[str, Stage] = {}


def run(
    config: Mapping[str, Any],
    workdir: str,
    stages: Sequence[str] = (),
    *,
    command: str = "",
    brief: bool = False,
) -> None:
    """Run the given stages in a workdir, all by default.

    Args:
      config: an experiment's config as nested dicts.
      workdir: created if missing; an interrupted run in it resumes.
      stages: names of the stages to run, a subset of those of the model's kind.
      command: command line, saved for the report.
      brief: print neither what the run is, nor what it reached.

    Raises:
      UserError: the config, the data or the workdir is invalid.
    """
    weights_and_biases.require_available()
    experiment = Experiment.from_config(config)
    all_stages = registry.load(experiment.spec.stages)(experiment)
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
    directory = Workdir(workdir)
    with directory.removed_if_refused():
        directory.require_usable(config)
        with locked(directory.path), directory.emptied_if_refused():
            pending = _pending(chosen, all_stages, directory)
            files = distributed.in_turn(lambda: _data_files(directory, experiment))
            if not pending:
                done = f"{workdir}: {', '.join(chosen)} are finished; nothing to do"
                print_line(done)
                if directory.results.exists() and not brief:
                    console.print_end(directory, experiment)
                return
            context = _open(directory, experiment)
            require_labels(experiment, context.dataset)
            require_initial(context.experiment, context.dataset)
            data_files.keep(directory, files, note=context.dataset.splits_note)
            # Written last, so that a workdir with a config belongs to a started run.
            directory.begin(config, command=command)
            distributed.barrier("config")
            if not brief:
                console.print_start(directory, context.experiment, context.dataset)
            for name in pending:
                preemption.check()
                print_line(name, style="bold")
                all_stages[name].run(context)
                distributed.barrier(name)
            if directory.results.exists() and not brief:
                console.print_end(directory, context.experiment)


def train_model(context: Context) -> None:
    """Fit the model to the images. The stage has the name of the model's kind."""
    workdir, experiment, dataset = context
    train = experiment.train_batches(
        dataset.train, experiment.training, random_flip=experiment.data.random_flip
    )
    run = Run(
        stage=experiment.kind,
        workdir=workdir.path,
        seed=experiment.seed,
        train=train,
        validation=lambda: experiment.eval_batches(dataset.validation),
        init_batch=experiment.init_batch(dataset.train, experiment.training),
        initial=initial_params(experiment.training, experiment.kind),
    )
    fit(experiment.model, experiment.training, run)


def training_stage(name: str, train: Callable[[Context], None]) -> Stage:
    """Return a training stage; it is done once its checkpoints are marked."""
    return Stage(lambda workdir: is_marked(workdir.checkpoints(name)), train)


def sampling_stage(sample: Callable[[Context], None]) -> Stage:
    """Return the stage that writes `samples.npz`."""
    return Stage(lambda workdir: workdir.samples.exists(), sample)


def final_stages(
    evaluate: Callable[[Context], tuple[Mapping, Mapping]],
    build_page: Callable[[Context], str],
) -> dict[str, Stage]:
    """Return the last stages of every run, `evaluate` and `report`.

    Args:
      evaluate: returns results by name, and arrays over test examples by name.
      build_page: returns the report as HTML.
    """
    return {
        "evaluate": Stage(
            lambda workdir: workdir.results.exists(),
            functools.partial(_write_results, evaluate=evaluate),
        ),
        "report": Stage(
            lambda workdir: workdir.report.exists(),
            functools.partial(_write_page, build_page=build_page),
        ),
    }


def require_labels(experiment: Experiment, dataset: Any) -> None:
    """Raise UserError if options of the samples need labels that the data lack."""
    classes = len(getattr(dataset, "class_names", ()))
    guidance = experiment.samples.guidance
    is_classified = experiment.evaluation.classify_samples
    for key, value, default, min_classes in (
        ("samples.guidance", guidance, 1.0, 1),
        # A classifier needs two classes.
        ("evaluation.classify_samples", is_classified, False, 2),
    ):
        require(
            value == default or classes >= min_classes,
            f"{key}={value} needs {'two classes' if classes else 'labels'}, and the "
            f"data has {classes or 'none'}: set it to {default}, or use data with "
            "classes",
        )


def _write_results(context: Context, *, evaluate) -> None:
    """Evaluate on the test split, on which nothing was trained or selected."""
    workdir = context.workdir
    results, bits = evaluate(context)
    if bits:
        workdir.write_arrays(workdir.test_bits, **bits)
    # Written last, because the results mark the stage as finished.
    workdir.write_json(workdir.results, results)


def _write_page(context: Context, *, build_page) -> None:
    if not distributed.is_first():
        return
    workdir = context.workdir
    workdir.write_bytes(workdir.report, build_page(context).encode())


def _data_files(workdir: Workdir, experiment: Experiment) -> data_files.Facts | None:
    """Return the facts of a folder of data; raise if the run has other files."""
    files = data_files.facts_of(experiment.data)
    data_files.require_same(workdir, files)
    return files


def _open(workdir: Workdir, experiment: Experiment) -> Context:
    """Open the data, and set the model's options that they decide."""
    open_data = registry.load(experiment.spec.open_data)
    dataset = distributed.in_turn(lambda: open_data(experiment.data))
    if dataset.given:
        experiment = experiment.with_given(dataset.given)
        workdir.keep_given(dataset.given)
    return Context(workdir, experiment, dataset)


def _pending(
    chosen: Sequence[str], stages: Mapping[str, Stage], workdir: Workdir
) -> list[str]:
    """Return the stages to run: the first unfinished one and all after it."""
    for i, name in enumerate(chosen):
        if not stages[name].is_done(workdir):
            return list(chosen[i:])
    return []


def _batch_sizes(experiment: Experiment) -> Iterator[tuple[str, int, int]]:
    """Yield (key, batch size, number of accumulated parts)."""
    sections = {"training": experiment.training}
    if experiment.second_stage is not None:
        name = training_section(experiment.second_stage)
        sections[name] = experiment.second_training
    for name, training in sections.items():
        yield f"{name}.batch_size", training.batch_size, training.accumulate
