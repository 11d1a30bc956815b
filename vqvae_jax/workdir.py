"""The directory of a run: its paths, atomic writes and checked reads."""

import contextlib
import dataclasses
import functools
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vqvae_jax import options, registry
from vqvae_jax.data.codes import CodesMetadata, CodesSource
from vqvae_jax.experiment import (
    Experiment,
    default_config,
    kind_of,
    second_stage_of,
)
from vqvae_jax.models.base import abstract_params, fingerprint
from vqvae_jax.options import shown
from vqvae_jax.runtime import distributed, safe_io
from vqvae_jax.runtime.errors import UserError, require
from vqvae_jax.training.checkpoints import (
    on_devices,
    require_usable_path,
    restore_best,
)
from vqvae_jax.training.loop import checkpoint_directory

SPLITS = ("train", "validation", "test")

# The arrays of `samples.npz`, as `safe_io.read_arrays` describes them.
IMAGES = {
    "images": "u N H W C",
    "labels": "i N",
    "class_names": "U K",
    "samples_per_second": "f",
}

# Options of this machine that do not affect the results.
_MACHINE_OPTIONS = frozenset(
    {"data_dir", "num_workers", "on_device", "profile_steps", "steps_per_call"}
)
# The format of config.json; version 0.1 wrote none.
_FORMAT_KEY, _FORMAT = "format", 2
# Systems limit a command line to less.
_MAX_COMMAND_BYTES = 2**22


class Workdir:
    """The files of a run's directory.

    Attributes:
      damage: the checkpoint of the first model that the last `restore` found damaged
        and replaced by an older one, and why; "" if none.
    """

    def __init__(self, path: str | os.PathLike):
        """Set all paths; read and write nothing."""
        self.path = Path(path)
        self.damage = ""
        self.config = self.path / "config.json"
        self.command = self.path / "command.txt"
        self.given = self.path / "given.json"
        self.data = self.path / "data.json"
        self.metrics = self.path / "metrics.jsonl"
        self.samples = self.path / "samples.npz"
        self.reconstructions = self.path / "reconstructions.npz"
        self.pictures = self.path / "samples"
        self.results = self.path / "results.json"
        self.test_bits = self.path / "test_bits.npz"
        self.phones = self.path / "phones.npz"
        self.report = self.path / "report.html"

    def checkpoints(self, stage: str) -> Path:
        """Return the directory of a stage's checkpoints."""
        return checkpoint_directory(self.path, stage)

    def codes_metadata(self, second_stage: str) -> Path:
        """Return the path of the metadata of a second stage's codes."""
        return self.path / f"{second_stage}.json"

    def read_codes_metadata(self, second_stage: str) -> CodesMetadata:
        """Read the metadata of the codes that a second stage was trained on.

        Raises:
          UserError: the file is missing or damaged.
        """
        path = self.codes_metadata(second_stage)
        return CodesMetadata.from_json(self.read_json(path), where=path)

    def codes_directory(self, split: str) -> Path:
        """Return the directory of the codes of a split."""
        return self.path / "codes" / split

    def has_codes(self) -> bool:
        """Return whether the codes of all splits exist."""
        return all(self.codes_directory(split).is_dir() for split in SPLITS)

    def codes(self, split: str) -> CodesSource:
        """Open the codes of a split.

        Raises:
          UserError: the codes are missing or damaged.
        """
        return CodesSource(self.codes_directory(split))

    def require_same_codebook(self, model: Any, params: Any) -> None:
        """Raise UserError unless codes and second stage belong to this VQ-VAE.

        Without a second stage, only the codes of the test split are checked, because
        only they are decoded.
        """
        second, digest = self.experiment().second_stage, fingerprint(model, params)
        if second is None:
            self.codes("test").require_fingerprint(digest)
            return
        trained_on = self.read_codes_metadata(second).fingerprint
        stages = registry.SECOND_STAGES[second].variants
        paths = (
            self.path / "codes",
            self.codes_metadata(second),
            *map(self.checkpoints, stages),
        )
        again = (
            f"remove {_listed(paths)}, and run the stages "
            f"{_listed(['codes', *stages])} again"
        )
        require(
            trained_on == digest,
            f"{self.damage}, and the {second} was trained on its codes: copy it from a "
            f"backup, or {again}"
            if self.damage
            else f"the {second} in {self.path} was trained on the codes of another "
            f"VQ-VAE ({trained_on}, now {digest}): {again}",
        )
        for split in filter(lambda name: self.codes_directory(name).is_dir(), SPLITS):
            self.codes(split).require_fingerprint(digest)

    def read_config(self) -> dict[str, Any]:
        """Read the config of this run.

        Raises:
          UserError: there is no run, or its config has another format.
        """
        config = self.read_json(self.config)
        version = config.pop(_FORMAT_KEY, 1)
        require(
            version == _FORMAT,
            f"{self.path} is a run of vqvae_jax 0.1, whose config has other keys: "
            "choose another --workdir, or use version 0.1 for this run"
            if version == 1
            else f"{self.config} has the unknown format {shown(version)}",
        )
        return config

    def experiment(self) -> Experiment:
        """Return the experiment of this run.

        Raises:
          UserError: there is no run, it is damaged, or its config has another format.
        """
        given = self._read_given()
        experiment = Experiment.from_config(self.read_config(), given=given)
        for name in experiment.data.placeholders:
            require(
                name in given,
                f"{self.given} is missing or damaged: it has no {name}",
            )
        return experiment

    def keep_given(self, given: Mapping[str, Any]) -> None:
        """Write the model's options that the data decide, or compare with the run's.

        Raises:
          UserError: the run was started with data that give other options.
        """
        if not self.given.exists():
            self.write_json(self.given, {k: list(v) for k, v in given.items()})
        distributed.barrier("given")
        before = self._read_given()
        for name, values in given.items():
            old = before.get(name, ())
            require(
                old == tuple(values),
                f"{self.path} was trained on data with {len(old)} {name} "
                f"({', '.join(old[:3])} ...), and the data now has {len(values)} "
                f"({', '.join(values[:3])} ...): choose another --workdir",
            )

    def _read_given(self) -> dict[str, tuple[str, ...]]:
        """Return the model's options that the data decided; {} before any."""
        if not self.given.exists():
            return {}
        found = self.read_json(self.given)
        for name, values in found.items():
            require(
                isinstance(values, list) and all(isinstance(v, str) for v in values),
                f"{self.given} is damaged: {name} is not a list of names",
            )
        return {name: tuple(values) for name, values in found.items()}

    def restore(self, stage: str | None = None) -> tuple[Any, Any]:
        """Return the model that a stage trained, and its best parameters by validation.

        If the run averages parameters, the average is returned. Only arrays and JSON
        are read.

        Args:
          stage: name of a stage that trains, such as "prior"; by default, the stage of
            the first model.

        Raises:
          UserError: the run, the stage or its checkpoint is missing, or the checkpoint
            has other sizes.
        """
        experiment = self.experiment()
        stage = stage or experiment.kind
        if stage == experiment.kind:
            model = experiment.model
        else:
            second = experiment.second_stage
            require(
                second is not None and stage in registry.SECOND_STAGES[second].variants,
                f"there is no {stage} in {self.path}: its {experiment.kind} is "
                f"followed by {second or 'nothing'}",
            )
            metadata = dataclasses.asdict(self.read_codes_metadata(second))
            model = experiment.second_models(metadata)[stage]
        one_device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        abstract = on_devices(abstract_params(model), one_device)
        found = restore_best(self.checkpoints(stage), abstract)
        if stage == experiment.kind:
            self.damage = found.damage
        return model, found.params

    def require_usable(self, config: Mapping[str, Any]) -> None:
        """Create the directory, or check that it is empty or holds this config's run.

        Raises:
          UserError: it is not writable, its path contains a wildcard, it contains the
            run of another config (the message lists the keys that differ), or differs
            between processes.
        """
        distributed.in_turn(functools.partial(self._require_same_run, config))
        if jax.process_count() > 1:
            self._require_shared()

    def _require_same_run(self, config: Mapping[str, Any]) -> None:
        require_usable_path(self.path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            raise UserError(
                f"--workdir={self.path} cannot be written to: {error.strerror}"
            ) from error
        if self.config.exists():
            _require_same(self.read_config(), config, self.path)

    @contextlib.contextmanager
    def removed_if_refused(self) -> Iterator[None]:
        """Remove a new workdir that an error leaves empty, and its new parents."""
        missing = [
            path for path in (self.path, *self.path.parents) if not path.exists()
        ]
        try:
            yield
        except Exception:
            if distributed.is_first():
                safe_io.remove_empty(missing)
            raise

    @contextlib.contextmanager
    def emptied_if_refused(self) -> Iterator[None]:
        """Remove what is written inside if an error precedes the first metrics.

        A workdir with a config belongs to a started run, and accepts no other config.
        """
        files = (self.config, self.command, self.given, self.data, self.metrics)
        new = [path for path in files if not path.exists()]
        logs = [self.path / name for name in ("tensorboard", "wandb")]
        new_logs = [path for path in logs if not path.exists()]
        try:
            yield
        except Exception:
            is_refused = self.config in new and not _has_content(self.metrics)
            if is_refused and distributed.is_first():
                for path in new:
                    # The error that ended the run is more informative.
                    with contextlib.suppress(OSError):
                        path.unlink(missing_ok=True)
                for path in new_logs:
                    shutil.rmtree(path, ignore_errors=True)
                directories = self.path.glob("checkpoints/**/")
                safe_io.remove_empty(sorted(directories, reverse=True))
            raise

    def begin(self, config: Mapping[str, Any], *, command: str = "") -> None:
        """Write the config, and the command unless one was written before."""
        if command and not self.command.exists():
            self.write_bytes(self.command, f"{command}\n".encode())
        self.write_json(self.config, {_FORMAT_KEY: _FORMAT, **config})

    def read_command(self) -> str:
        """Return the command line that started the run; "" if unknown.

        Raises:
          UserError: its file cannot be read.
        """
        if not self.command.exists():
            return ""
        return safe_io.read_text(self.command, limit=_MAX_COMMAND_BYTES).strip()

    def _require_shared(self) -> None:
        """Raise UserError unless all processes share this directory."""
        marker = self.path / ".shared"
        self.write_bytes(marker, uuid.uuid4().bytes)
        distributed.barrier("shared")
        found = safe_io.read_bytes(marker, limit=16) if marker.exists() else b""
        distributed.require_same(
            found.hex(),
            f"--workdir={self.path} is not the same directory for all processes: "
            "choose one that all of them share",
        )
        if distributed.is_first():
            marker.unlink()

    def read_json(self, path: Path) -> dict:
        """Read a JSON file of this run.

        Raises:
          UserError: the file is missing or damaged.
        """
        require(
            path.exists(), f"{path} does not exist: is {self.path} a run's workdir?"
        )
        return safe_io.read_json(path)

    def read_results(self) -> dict[str, float]:
        """Read the results; UserError if they are missing or not numbers."""
        return safe_io.require_numbers(self.read_json(self.results), of=self.results)

    def read_samples(self, expected: safe_io.Schema = IMAGES) -> dict[str, np.ndarray]:
        """Read the samples.

        Args:
          expected: the required arrays, as in `safe_io.read_arrays`.

        Raises:
          UserError: the file is missing or damaged.
        """
        return safe_io.read_arrays(self.samples, expected)

    def write_json(self, path: Path, values: Mapping[str, Any]) -> None:
        """Write a JSON file atomically; only the first process writes."""
        if distributed.is_first():
            safe_io.write_json(path, values)

    def write_arrays(self, path: Path, **arrays: Any) -> None:
        """Write an npz file of arrays atomically."""
        self.write_bytes(path, safe_io.npz(**arrays))

    def write_bytes(self, path: Path, content: bytes) -> None:
        """Write a file atomically; only the first process writes.

        Raises:
          UserError: the write fails, for example because the disk is full.
        """
        if distributed.is_first():
            safe_io.write_bytes(path, content)


def without_machine_keys(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of a config that affect the results, flat and sorted."""
    flat = options.flatten(config)
    return {
        key: flat[key]
        for key in sorted(flat)
        if key.rpartition(".")[2] not in _MACHINE_OPTIONS
    }


def _has_content(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


def _listed(items: Sequence[Any]) -> str:
    """Return "a, b and c"."""
    *first, last = map(str, items)
    return f"{', '.join(first)} and {last}" if first else last


def _require_same(
    old: Mapping[str, Any], new: Mapping[str, Any], workdir: Path
) -> None:
    # Options that were added to the library since are missing in the run's config.
    defaults: dict[str, Any] = {}
    with contextlib.suppress(UserError):  # Such as of a study, which has no model.
        kind = kind_of(old)
        defaults = options.flatten(default_config(kind, second_stage_of(kind, old)))
    old, new = without_machine_keys(old), without_machine_keys(new)
    added = {k: defaults[k] for k in new.keys() - old.keys() if k in defaults}
    old = {**added, **old}
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
