"""Parameters of trained models to start from: fine-tuning, and priors on new codes."""

import functools
from collections.abc import Callable
from typing import Any

from vqvae_jax import registry
from vqvae_jax.experiment import Experiment, training_section
from vqvae_jax.models.base import abstract_params
from vqvae_jax.runtime.checksums import differences, shapes_of
from vqvae_jax.runtime.errors import UserError, require
from vqvae_jax.training.config import TrainingConfig


def initial_params(config: TrainingConfig, stage: str) -> Callable[[], Any] | None:
    """Return the function that reads a stage's parameters; None for new ones."""
    if not config.init_from:
        return None
    return functools.partial(_read, config.init_from, stage)


def require_initial(experiment: Experiment, dataset: Any) -> None:
    """Raise UserError unless the parameters to start from fit the models.

    Only metadata are read.

    Args:
      experiment: with the options that the data decide.
      dataset: the opened data.
    """
    kind, second = experiment.kind, experiment.second_stage
    if source := experiment.training.init_from:
        _require_fit(source, kind, experiment.model, key="training.init_from")
    if second is None or not experiment.second_training.init_from:
        return
    codes = {
        "grid": getattr(experiment.model, "grid", ()),
        "num_codes": experiment.model.num_codes,
        "class_names": getattr(dataset, "class_names", ())
        or getattr(dataset, "speaker_names", ()),
        "action_names": getattr(dataset, "action_names", ()),
    }
    key = f"{training_section(second)}.init_from"
    for stage, model in experiment.second_models(codes).items():
        _require_fit(experiment.second_training.init_from, stage, model, key=key)


def _require_fit(source: str, stage: str, model: Any, *, key: str) -> None:
    try:
        metadata = _find(source).metadata
    except UserError as error:
        raise UserError(f"{key}={source}: {error}") from error
    stages = {metadata.kind: metadata.model, **metadata.models}
    require(
        stage in stages,
        f"{key}={source}: it has no {stage}; it has {', '.join(stages)}",
    )
    found = shapes_of(metadata.abstract_params(stage))
    problems = differences(found, shapes_of(abstract_params(model)), where="there")
    require(
        not problems,
        f"{key}={source}: the {stage}'s sizes differ ({''.join(problems[:1])}"
        f"{f', and {len(problems) - 1} more' if len(problems) > 1 else ''}): set the "
        "same sizes, or leave it out",
    )


def _read(source: str, stage: str) -> Any:
    return _find(source).params(stage)


def _find(source: str) -> Any:
    return registry.load(registry.FIND_MODEL)(source)
