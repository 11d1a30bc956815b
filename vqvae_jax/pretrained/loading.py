"""Where a trained model may be: a workdir, a file, a folder with one, the Hub."""

import dataclasses
import os
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from vqvae_jax import workdir as workdir_lib
from vqvae_jax.models.prior import Prior
from vqvae_jax.models.second import SECOND_STAGES
from vqvae_jax.pretrained import hub
from vqvae_jax.pretrained.file import File
from vqvae_jax.pretrained.metadata import About
from vqvae_jax.runtime.errors import require
from vqvae_jax.workdir import Workdir

FILE = "model.safetensors"


@runtime_checkable
class Place(Protocol):
    """A trained model and what follows it, wherever they are kept."""

    about: About

    def params(self, stage: str) -> Any:
        """Return the arrays of a stage."""


class WorkdirPlace:
    """The best checkpoints of a run, finished or not."""

    def __init__(self, path: str | os.PathLike):
        """Read what a run is; UserError where there is none."""
        self._run = run = Workdir(path)
        experiment = run.experiment()
        models, second, codes_of = {}, experiment.second, None
        if second is not None and run.facts(second).exists():
            facts = dataclasses.asdict(run.read_facts(second))
            made, codes_of = experiment.make_second(facts), facts["fingerprint"]
            models = {k: v for k, v in made.items() if run.checkpoints(k).is_dir()}
        self.about = About(
            kind=experiment.kind,
            model=experiment.model,
            second=second,
            models=models,
            codes_of=codes_of,
            sample_rate=getattr(experiment.data, "sample_rate", None),
            config=run.read_json(run.config),
            results=run.read_results() if run.results.exists() else {},
        )

    def params(self, stage: str) -> Any:
        """Return the arrays of a stage, those of the best checkpoint by validation.

        Raises:
          UserError: there is no such stage, or no checkpoint of it yet.
        """
        if stage == self.about.kind:
            return workdir_lib.restore(self._run.path)[1]
        return workdir_lib.restore_second(self._run.path, stage)[1]


def find(place: str | os.PathLike) -> Place:
    """Return what is at a place.

    Args:
      place: a run's workdir, a file of `save_pretrained`, the folder that it is in, or
        hf://user/name, also with @revision.

    Raises:
      UserError: there is no trained model.
    """
    if str(place).startswith(hub.PREFIX):
        return File(hub.download(str(place), FILE))
    path = Path(place)
    require(
        path.exists(),
        f"{path} does not exist: expected a run's workdir, a {FILE} or hf://user/name",
    )
    if path.is_file():
        return File(path)
    if (path / FILE).is_file() and not Workdir(path).config.exists():
        return File(path / FILE)
    return WorkdirPlace(path)


def restore(place: str | os.PathLike) -> tuple[Any, Any]:
    """Load a trained model, from a workdir the best by validation.

    That is a `VQVAE` with its `Params`, or what else its kind is. Only arrays and JSON
    are read.

    Args:
      place: a run's workdir, finished or running; a file of `save_pretrained` or the
        folder that it is in; or "hf://user/name", also with "@revision".

    Raises:
      UserError: there is no trained model, or one that is damaged or of other sizes.
    """
    found = find(place)
    return found.about.model, found.params(found.about.kind)


def restore_second(place: str | os.PathLike, stage: str) -> tuple[Any, Any]:
    """Load the model that a stage after the codes trained, from where `restore` does.

    Raises:
      UserError: as `restore`, or there is no such stage.
    """
    found = find(place)
    about = found.about
    stages = SECOND_STAGES[about.second].trained if about.second else ()
    require(
        stage in stages,
        f"there is no {stage} in {place}: its {about.kind} is followed by "
        f"{about.second or 'nothing'}",
    )
    require(
        stage in about.models, f"there is no {stage} in {place} yet: train it first"
    )
    params = found.params(stage)
    return about.models[stage], params


def restore_prior(place: str | os.PathLike) -> tuple[Prior, Any]:
    """Load the prior over the codes, from where `restore` does.

    `prior.class_names` says what its labels mean.

    Raises:
      UserError: as `restore`, or there is no prior.
    """
    return restore_second(place, "prior")
