"""Trained models from a workdir, a file, a folder with one, or the Hub."""

import dataclasses
import os
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from vqvae_jax import registry
from vqvae_jax.pretrained import hub
from vqvae_jax.pretrained.file import File
from vqvae_jax.pretrained.metadata import Metadata
from vqvae_jax.runtime.errors import require

FILE = "model.safetensors"


@runtime_checkable
class TrainedModel(Protocol):
    """A trained model and its second stage, wherever they are stored."""

    metadata: Metadata

    def params(self, stage: str) -> Any:
        """Return the parameters of a stage."""


class Run:
    """The best checkpoints of a run, finished or not; needs the extra `train`."""

    def __init__(self, path: str | os.PathLike):
        """Read the metadata of a run; UserError where there is none."""
        # Imported here: files are read without Orbax and array_record.
        from vqvae_jax.workdir import Workdir

        self._workdir = workdir = Workdir(path)
        experiment = workdir.experiment()
        models, second, codes_of = {}, experiment.second_stage, None
        if second is not None and workdir.codes_metadata(second).exists():
            codes = dataclasses.asdict(workdir.read_codes_metadata(second))
            made, codes_of = experiment.second_models(codes), codes["fingerprint"]
            models = {k: v for k, v in made.items() if workdir.checkpoints(k).is_dir()}
        self.metadata = Metadata(
            kind=experiment.kind,
            model=experiment.model,
            second_stage=second,
            models=models,
            codes_of=codes_of,
            sample_rate=getattr(experiment.data, "sample_rate", None),
            config=workdir.read_config(),
            results=workdir.read_results() if workdir.results.exists() else {},
        )

    def params(self, stage: str) -> Any:
        """Return the parameters of a stage's best checkpoint by validation.

        Raises:
          UserError: there is no such stage, or no checkpoint of it yet.
        """
        return self._workdir.restore(stage)[1]


def find(source: str | os.PathLike) -> TrainedModel:
    """Return the trained model of a source.

    Args:
      source: a run's workdir, a file of `save_pretrained`, the folder that it is in, or
        hf://user/name, also with @revision.

    Raises:
      UserError: there is no trained model.
    """
    if str(source).startswith(hub.PREFIX):
        return File(hub.download(str(source), FILE))
    path = Path(source)
    require(
        path.exists(),
        f"{path} does not exist: expected a run's workdir, a {FILE} or hf://user/name",
    )
    if path.is_file():
        return File(path)
    if (path / FILE).is_file() and not (path / "config.json").exists():
        return File(path / FILE)
    return Run(path)


def restore(source: str | os.PathLike, stage: str | None = None) -> tuple[Any, Any]:
    """Load a trained model, from a workdir the best by validation.

    By default that is the model itself, such as a `VQVAE` with its `Params`. With
    `stage="prior"` it is the prior over its codes, whose `class_names` are the meaning
    of its labels. Only arrays and JSON are read.

    Args:
      source: a run's workdir, finished or running; a file of `save_pretrained` or the
        folder that it is in; or "hf://user/name", also with "@revision".
      stage: of a second stage, such as "prior", "hierarchy" or "video".

    Raises:
      UserError: there is no trained model or no such stage, or it is damaged or of
        other sizes.
    """
    found = find(source)
    metadata = found.metadata
    if stage is None or stage == metadata.kind:
        return metadata.model, found.params(metadata.kind)
    second = metadata.second_stage
    stages = registry.SECOND_STAGES[second].variants if second else ()
    require(
        stage in stages,
        f"there is no {stage} in {source}: its {metadata.kind} is followed by "
        f"{second or 'nothing'}",
    )
    require(
        stage in metadata.models,
        f"there is no {stage} in {source} yet: train it first",
    )
    params = found.params(stage)
    return metadata.models[stage], params
