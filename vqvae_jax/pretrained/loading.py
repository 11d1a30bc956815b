"""Trained models: from a workdir, a file, a folder or the Hub, and to a folder."""

import dataclasses
import os
import re
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from vqvae_jax import registry
from vqvae_jax.models.base import fingerprint
from vqvae_jax.pretrained import card, released
from vqvae_jax.pretrained.file import File, write
from vqvae_jax.pretrained.metadata import Metadata, metadata_of
from vqvae_jax.runtime.errors import UserError, require
from vqvae_jax.runtime.extras import imported
from vqvae_jax.runtime.safe_io import write_bytes

FILE = released.FILE
HUB = "hf://"


@runtime_checkable
class TrainedModel(Protocol):
    """A trained model and its second stage, wherever they are stored.

    Attributes:
      metadata: of the model.
      damage: the checkpoint of the model that was replaced by an older one when its
        parameters were read, and why; "" if none.
    """

    metadata: Metadata
    damage: str

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

    @property
    def damage(self) -> str:
        """The checkpoint of the model that was replaced by an older one, and why."""
        return self._workdir.damage


def find(source: str | os.PathLike) -> TrainedModel:
    """Return the trained model of a source.

    Args:
      source: a run's workdir, a file of `save_pretrained`, the folder that it is in,
        the name of a released model, or hf://user/name, also with @revision.

    Raises:
      UserError: there is no trained model.
    """
    if str(source).startswith(HUB):
        return File(download(str(source), FILE))
    path = Path(source)
    if not path.exists():
        of_name = released.path_of(str(source))
        require(
            of_name is not None,
            f"{path} does not exist: expected a run's workdir, a {FILE}, "
            f"{HUB}user/name or a released model ({', '.join(released.names())})",
        )
        return File(of_name)
    if not path.is_dir():
        return File(path)
    if (path / FILE).is_file() and not (path / "config.json").exists():
        return File(path / FILE)
    return Run(path)


def require_same_codes(
    found: TrainedModel, digest: str, *, source: str | os.PathLike
) -> None:
    """Raise UserError unless the second stage was trained on the codes of a model.

    Args:
      found: the model and its second stage.
      digest: the fingerprint of the model's parameters.
      source: names the model in the message.
    """
    metadata = found.metadata
    require(
        metadata.codes_of == digest,
        f"{found.damage}, and the {metadata.second_stage} was trained on its codes: "
        f"copy it from a backup, or train the {metadata.second_stage} again"
        if found.damage
        else f"the {metadata.second_stage} in {source} was trained on the codes of "
        f"another model ({metadata.codes_of}, now {digest}): train it again",
    )


def download(name: str, filename: str) -> Path:
    """Return the local path of a file of a Hub repository; download it if necessary.

    Raises:
      UserError: the name is invalid, huggingface_hub is not installed, or the file
        cannot be downloaded.
    """
    found = re.fullmatch(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", name[len(HUB) :])
    require(
        found is not None,
        f"{name} is not a name on the Hub: expected {HUB}user/name",
    )
    repository, revision = found.groups()
    hub = imported("huggingface_hub", purpose=f"to read {name}", extra="hub")
    try:
        path = hub.hf_hub_download(repository, filename, revision=revision)
    # Its errors come from several HTTP libraries, depending on its version.
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{filename} of {name} cannot be downloaded: {reason}"
        ) from error
    return Path(path)


def restore(source: str | os.PathLike, stage: str | None = None) -> tuple[Any, Any]:
    """Load a trained model, from a workdir the best by validation.

    By default that is the model itself, such as a `VQVAE` with its `Params`. With
    `stage="prior"` it is the prior over its codes, whose `class_names` are the meaning
    of its labels. Only arrays and JSON are read.

    Args:
      source: a run's workdir, finished or running; a file of `save_pretrained` or the
        folder that it is in; the name of a released model, such as "cifar10"; or
        "hf://user/name", also with "@revision".
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
    return metadata.models[stage], found.params(stage)


def save_pretrained(
    source: str | os.PathLike | tuple[Any, ...],
    folder: str | os.PathLike,
    *,
    sample_rate: int | None = None,
    half: bool = False,
) -> Path:
    """Write a trained model to `folder`, from which `restore` loads it.

    `model.safetensors` holds the arrays of the best checkpoints, those of the second
    stage too, with options, class names, config and results. `README.md` is its card.
    Existing files are replaced.

    Args:
      source: a source of `restore`; or (model, params), or (model, params, prior,
        prior_params), from your own training loop.
      folder: created if missing.
      sample_rate: Hz, for models of speech whose source does not record it.
      half: store float16, half of the size; the model computes in float32 all the same.

    Returns the path of the file.

    Raises:
      UserError: there is no trained model, its prior was trained on the codes of
        another one, or the folder cannot be written to.
    """
    if isinstance(source, tuple):
        metadata, params = metadata_of(*source)
    else:
        found = find(source)
        metadata = found.metadata
        stages = (metadata.kind, *metadata.models)
        params = {stage: found.params(stage) for stage in stages}
        if metadata.models:
            digest = fingerprint(metadata.model, params[metadata.kind])
            require_same_codes(found, digest, source=source)
    if half:
        params = jax.tree.map(_half, params)
        if metadata.models:
            widened = jax.tree.map(_widened, params[metadata.kind])
            digest = fingerprint(metadata.model, widened)
            metadata = metadata._replace(codes_of=digest)
    if sample_rate is not None:
        metadata = metadata._replace(sample_rate=sample_rate)
    path = Path(folder) / FILE
    write(path, metadata, params)
    write_bytes(path.with_name("README.md"), card.of(metadata, path.parent).encode())
    return path


def _widened(array: np.ndarray) -> jax.Array:
    """Return an array of `_half` as it is loaded."""
    is_half = array.dtype == np.float16
    return jnp.asarray(array, np.float32 if is_half else array.dtype)


def _half(array: Any) -> np.ndarray:
    """Return a float32 array as float16.

    Raises:
      UserError: a value is too large.
    """
    array = np.asarray(array)
    if array.dtype != np.float32:
        return array
    with np.errstate(over="ignore"):
        halved = array.astype(np.float16)
    require(
        bool(np.isfinite(halved).all()),
        "a parameter is larger than float16 can hold: save with half=False",
    )
    return halved
