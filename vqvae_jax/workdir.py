"""A run's directory: what is where, written whole or not at all, and read back."""

import dataclasses
import functools
import hashlib
import io
import os
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vqvae_jax import options as config_lib
from vqvae_jax.data.codes import CodesMetadata, CodesSource
from vqvae_jax.experiment import Experiment, kind_of
from vqvae_jax.models import vqvae as vqvae_lib
from vqvae_jax.models.prior import Prior
from vqvae_jax.models.second import SECOND_STAGES
from vqvae_jax.runtime import distributed, npz_schemas, safe_io
from vqvae_jax.runtime.errors import UserError, require
from vqvae_jax.tasks.speech import model as speech_lib
from vqvae_jax.training.checkpoints import on_devices, restore_params
from vqvae_jax.training.loop import checkpoint_directory

# What has an encoder and a codebook.
Coding = vqvae_lib.Params | speech_lib.Params

SPLITS = ("train", "validation", "test")

# These say where this machine has things, and what it tells, not what is computed.
_MACHINE_OPTIONS = frozenset({"data_dir", "num_workers", "profile_steps"})


class Workdir:
    """Paths inside a run's directory."""

    def __init__(self, path: str | os.PathLike):
        """Name a directory; nothing is read or written."""
        self.path = Path(path)
        self.config = self.path / "config.json"
        self.command = self.path / "command.txt"
        self.speakers = self.path / "speakers.json"
        self.data = self.path / "data.json"
        self.prior = self.facts("prior")
        self.metrics = self.path / "metrics.jsonl"
        self.samples = self.path / "samples.npz"
        self.reconstructions = self.path / "reconstructions.npz"
        self.pictures = self.path / "samples"
        self.results = self.path / "results.json"
        self.test_bits = self.path / "test_bits.npz"
        self.phones = self.path / "phones.npz"
        self.report = self.path / "report.html"

    def checkpoints(self, stage: str) -> Path:
        """Return where a stage's checkpoints are."""
        return checkpoint_directory(self.path, stage)

    def facts(self, second: str) -> Path:
        """Return where a second stage keeps the metadata of the codes it is for."""
        return self.path / f"{second}.json"

    def read_facts(self, second: str) -> CodesMetadata:
        """Read the metadata of the codes that a second stage was trained on.

        Raises:
          UserError: they are missing or damaged.
        """
        place = self.facts(second)
        return CodesMetadata.from_json(self.read_json(place), where=place)

    def codes_directory(self, split: str) -> Path:
        """Return where the codes of a split are."""
        return self.path / "codes" / split

    def has_codes(self) -> bool:
        """Return whether the codes of all splits are there."""
        return all(self.codes_directory(split).is_dir() for split in SPLITS)

    def codes(self, split: str) -> CodesSource:
        """Open the codes of a split.

        Raises:
          UserError: stage `codes` has not written them, or they are damaged.
        """
        return CodesSource(self.codes_directory(split))

    def require_same_codebook(self, params: Coding) -> None:
        """Raise UserError unless the codes are this VQ-VAE's, and the second stage's.

        Where no second stage follows, codes of the test split are what is decoded.
        """
        second, ours = self.experiment().second, fingerprint(params)
        if second is None:
            self.codes("test").require_fingerprint(ours)
            return
        theirs = self.read_facts(second).fingerprint
        stages = SECOND_STAGES[second].trained
        places = self.path / "codes", self.facts(second), *map(self.checkpoints, stages)
        require(
            theirs == ours,
            f"the {second} in {self.path} was trained on the codes of another VQ-VAE "
            f"({theirs}, now {ours}): remove {_listed(places)}, and run the stages "
            f"{_listed(['codes', *stages])} again",
        )
        for split in filter(lambda name: self.codes_directory(name).is_dir(), SPLITS):
            self.codes(split).require_fingerprint(ours)

    def experiment(self) -> Experiment:
        """Read the config that this directory was made with.

        Raises:
          UserError: there is no run here, or its config is not of this version.
        """
        config = self.read_json(self.config)
        if kind_of(config) != "speech":
            return Experiment.from_config(config)
        return Experiment.from_config(config, speaker_names=self._speaker_names())

    def keep_speakers(self, names: Sequence[str]) -> None:
        """Write who speaks in the data, or see that they are those of the run.

        Raises:
          UserError: the run was made with other speakers.
        """
        if not self.speakers.exists():
            self.write_json(self.speakers, {"speaker_names": list(names)})
        distributed.barrier("speakers")
        before = self._speaker_names()
        require(
            before == tuple(names),
            f"{self.path} was trained on the speech of {len(before)} speakers "
            f"({', '.join(before[:3])} ...), and the data now has {len(names)} "
            f"({', '.join(names[:3])} ...): choose another --workdir",
        )

    def _speaker_names(self) -> tuple[str, ...]:
        names = self.read_json(self.speakers).get("speaker_names")
        require(
            isinstance(names, list) and all(isinstance(name, str) for name in names),
            f"{self.speakers} is damaged: it has no list speaker_names",
        )
        return tuple(names)

    def require_usable(self, config: Mapping[str, Any]) -> None:
        """Make the directory, or see that it is empty or holds this config's run.

        Raises:
          UserError: it cannot be written to, holds the run of another config, whose
            differing keys the message lists, or is not the same one for all processes.
        """
        distributed.in_turn(functools.partial(self._require_own, config))
        if jax.process_count() > 1:
            self._require_shared()

    def _require_own(self, config: Mapping[str, Any]) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            raise UserError(
                f"--workdir={self.path} cannot be written to: {error.strerror}"
            ) from error
        if self.config.exists():
            _require_same(self.read_json(self.config), config, self.path)

    def begin(self, config: Mapping[str, Any], *, command: str = "") -> None:
        """Write what the run is made with; the command only the first time."""
        if command and not self.command.exists():
            self.write_bytes(self.command, f"{command}\n".encode())
        self.write_json(self.config, config)

    def read_command(self) -> str:
        """Return what was typed to start the run; "" if that is not known."""
        if not self.command.exists():
            return ""
        return self.command.read_text(encoding="utf-8").strip()

    def _require_shared(self) -> None:
        """See that all processes read what the first one writes here."""
        place = self.path / ".shared"
        self.write_bytes(place, uuid.uuid4().bytes)
        distributed.barrier("shared")
        found = place.read_bytes() if place.exists() else b""
        distributed.require_same(
            found.hex(),
            f"--workdir={self.path} is not the same directory for all processes: "
            "choose one that all of them share",
        )
        if distributed.is_first():
            place.unlink()

    def read_json(self, path: Path) -> dict:
        """Read a JSON file of this run.

        Raises:
          UserError: it is missing or damaged.
        """
        require(
            path.exists(), f"{path} does not exist: is {self.path} a run's workdir?"
        )
        return safe_io.read_json(path)

    def read_results(self) -> dict[str, float]:
        """Read the figures; UserError if they are missing, or not all are numbers."""
        return safe_io.require_numbers(self.read_json(self.results), of=self.results)

    def read_samples(
        self, expected: safe_io.Forms = npz_schemas.IMAGES
    ) -> dict[str, np.ndarray]:
        """Read the samples: as `forms` has them of images, clips or conversions.

        Raises:
          UserError: they are missing or damaged.
        """
        return safe_io.read_arrays(self.samples, expected)

    def read_reconstructions(self) -> dict[str, np.ndarray]:
        """Read the images made from global codes, and which frames they are of.

        Raises:
          UserError: they are missing or damaged.
        """
        return safe_io.read_arrays(self.reconstructions, npz_schemas.RECONSTRUCTIONS)

    def write_json(self, path: Path, values: Mapping[str, Any]) -> None:
        """Write a JSON file, whole or not at all; of several processes the first."""
        if distributed.is_first():
            safe_io.write_json(path, values)

    def write_arrays(self, path: Path, **arrays: Any) -> None:
        """Write an npz file of arrays, whole or not at all."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)
        self.write_bytes(path, buffer.getvalue())

    def write_bytes(self, path: Path, content: bytes) -> None:
        """Write a file, whole or not at all; of several processes the first does.

        Raises:
          UserError: the disk is full or the like.
        """
        if distributed.is_first():
            safe_io.write_bytes(path, content)


def restore(workdir: str | os.PathLike) -> tuple[Any, Any]:
    """Load the model of a finished or running workdir, best by validation.

    That is a `VQVAE` with its `Params`, or what else `model.kind` in the config names.
    Parameters are their moving average where the run kept one. Only arrays and JSON are
    read.

    Raises:
      UserError: there is no run, no checkpoint yet, or one of other sizes.
    """
    run = Workdir(workdir)
    experiment = run.experiment()
    model, batch = experiment.model, experiment.init_shapes
    abstract = jax.eval_shape(model.init, jax.random.key(0), batch)
    return model, _best_params(run, experiment.kind, abstract)


def restore_prior(workdir: str | os.PathLike) -> tuple[Prior, Any]:
    """Load the prior of a finished or running workdir, best by validation.

    Its parameters are their moving average where the run kept one. Only arrays and JSON
    are read. `prior.class_names` says what its labels mean.

    Raises:
      UserError: there is no run, no checkpoint of the prior yet, or one of other sizes.
    """
    return restore_second(workdir, "prior")


def restore_second(workdir: str | os.PathLike, stage: str) -> tuple[Any, Any]:
    """Load the model that a stage after the codes trained, best by validation.

    Its parameters are their moving average where the run kept one. Only arrays and JSON
    are read.

    Raises:
      UserError: there is no run, it has no such stage, there is no checkpoint of it
        yet, or one of other sizes.
    """
    run = Workdir(workdir)
    experiment = run.experiment()
    follows = experiment.second or "nothing"
    stages = SECOND_STAGES[follows].trained if experiment.second else ()
    require(
        stage in stages,
        f"there is no {stage} in {run.path}: its {experiment.kind} is followed by "
        f"{follows}",
    )
    facts = dataclasses.asdict(run.read_facts(experiment.second))
    model = experiment.make_second(facts)[stage]
    abstract = jax.eval_shape(
        model.init, jax.random.key(0), SECOND_STAGES[follows].batch(model)
    )
    return model, _best_params(run, stage, abstract)


def fingerprint(params: Coding) -> str:
    """Return a hash of what decides the codes: encoder and embeddings."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves((params.encoder, params.codebook.embeddings)):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()[:16]


def without_machine_keys(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a config says of what is computed, flat and sorted by key."""
    flat = config_lib.flatten(config)
    return {
        key: flat[key]
        for key in sorted(flat)
        if key.rpartition(".")[2] not in _MACHINE_OPTIONS
    }


def _listed(things: Sequence[Any]) -> str:
    """Return "a, b and c"."""
    *first, last = map(str, things)
    return f"{', '.join(first)} and {last}" if first else last


def _best_params(run: Workdir, stage: str, abstract: Any) -> Any:
    one_device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return restore_params(run.checkpoints(stage), on_devices(abstract, one_device))


def _require_same(
    old: Mapping[str, Any], new: Mapping[str, Any], workdir: Path
) -> None:
    old, new = without_machine_keys(old), without_machine_keys(new)
    differing = [
        f"{key}: {old.get(key)!r} there, {new.get(key)!r} now"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]
    require(
        not differing,
        f"{workdir} holds the run of another config ({'; '.join(differing)}): choose "
        "another --workdir, or the config it was made with",
    )
