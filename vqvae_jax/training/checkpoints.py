"""Checkpoints through Orbax: asynchronous, atomic, arrays and JSON only.

A checkpoint has three items. `params` holds the parameters that users of the model
read: the moving average if there is one. `training` holds optimiser state, key, step
and, if `params` holds the average, the parameters themselves. `data` holds the state of
the data iterator. Checksums of all three are stored, because Orbax has none of arrays.
"""

import contextlib
import dataclasses
import glob
import math
import re
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from vqvae_jax.runtime import checksums
from vqvae_jax.runtime.checksums import require_same_shapes, shapes_of
from vqvae_jax.runtime.errors import UserError, one_line
from vqvae_jax.runtime.safe_io import MAX_JSON_BYTES, require_files
from vqvae_jax.training.step import TrainState

_CENTURY = 100 * 365 * 86_400  # Seconds.
_RETRY_DELAY = 1.0  # Second.
_MAX_ARRAYS_BYTES = 2**42
# Raised if the file of the metrics is missing or damaged.
_NO_METRICS = (
    FileNotFoundError,
    IsADirectoryError,
    NotADirectoryError,
    RecursionError,
    ValueError,
)

T = TypeVar("T")


class BestParams(NamedTuple):
    """Parameters of the best readable checkpoint.

    Attributes:
      params: as the abstract parameters.
      damage: the first better checkpoint that cannot be read, and why; "" if none.
    """

    params: Any
    damage: str


class Restored(NamedTuple):
    """A training state and the matching JSON state of the data iterator."""

    state: TrainState
    data: dict


class Checkpoints:
    """The checkpoints of one stage: the newest `keep` and the best by validation.

    A checkpoint without a validation loss, saved when training was interrupted, is kept
    only while it is the newest, and does not count towards `keep`.
    """

    def __init__(self, directory: Path, *, keep: int):
        """Open or create the directory and remove remains of interrupted saves."""
        self._directory = Path(directory).absolute()
        self._manager = writable_manager(self._directory, keep=keep)

    def __enter__(self):
        return self

    def __exit__(self, error_type, error, traceback):
        try:
            with _one_line_errors(f"the last checkpoint in {self._directory}"):
                self._manager.close()
        except UserError:
            # The error that ended training is more informative than a failed close.
            if error is None:
                raise

    @property
    def last_step(self) -> int | None:
        """The step of the newest checkpoint, None if there is none."""
        return self._manager.latest_step()

    @property
    def best_step(self) -> int | None:
        """The step of the lowest validation loss, the newest if several are equal."""
        return self._manager.best_step()

    def is_validated(self, step: int) -> bool:
        """Return whether the checkpoint of a step has a validation loss."""
        return self._manager.metrics(step) is not None

    def save(
        self, state: TrainState, data: dict, *, validation_loss: float | None
    ) -> None:
        """Start to write a checkpoint; training can continue immediately.

        A checkpoint of the same step without a `validation_loss` is replaced.

        Raises:
          UserError: this or the previous checkpoint could not be written.
        """
        # The array handler below does not restore typed keys, only their data.
        training = _without_result(state, key=jax.random.key_data(state.key))
        step = int(state.step)
        with _one_line_errors(f"checkpoint {step} in {self._directory}"):
            if step == self.last_step and not self.is_validated(step):
                self._manager.delete(step)
            self._manager.write(
                step,
                params=state.result,
                training=training,
                data=data,
                validation_loss=validation_loss,
            )

    def wait(self) -> None:
        """Wait until all saved checkpoints are on disk.

        Raises:
          UserError: a checkpoint could not be written.
        """
        with _one_line_errors(f"the last checkpoint in {self._directory}"):
            self._manager.wait_until_finished()

    def restore_latest(self, abstract: TrainState) -> Restored | None:
        """Return the newest readable state, None if there is no checkpoint.

        Damaged checkpoints are skipped with a warning and removed, so that training can
        write their steps again.

        Raises:
          UserError: no checkpoint can be read, or the newest belongs to a model of
            other sizes.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        key = jax.eval_shape(jax.random.key_data, abstract.key)
        key = on_devices(key, abstract.key.sharding)
        training = _without_result(abstract, key=key)
        damaged = []
        for step in steps:
            try:
                found = self._manager.read(
                    step, params=abstract.result, training=training
                )
            except UserError:
                raise
            except Exception as error:
                _warn_damaged(self._directory / str(step), error)
                damaged.append(step)
                continue
            for bad in damaged:
                self._manager.delete(bad)
            state, result = found["training"], found["params"]
            state = state._replace(key=jax.random.wrap_key_data(state.key))
            if abstract.average is None:
                return Restored(state._replace(params=result), found["data"])
            return Restored(state._replace(average=result), found["data"])
        if steps:
            raise UserError(
                f"none of the {len(steps)} checkpoints in {self._directory} can be "
                "read: remove the directory to restart this stage"
            )
        return None


def restore_best(directory: Path, abstract_params: Any) -> BestParams:
    """Read the parameters of the best readable checkpoint by validation.

    Damage to optimiser state or metrics does not matter.

    Raises:
      UserError: there is no checkpoint, none can be read, or it belongs to a model of
        other sizes.
    """
    directory = Path(directory).absolute()
    if not directory.is_dir():
        raise UserError(
            f"there is no checkpoint in {directory}: train this stage first"
        )
    damage = ""
    with readable_manager(directory) as manager:
        for step in manager.best_first():
            try:
                params = manager.read(step, params=abstract_params)["params"]
                return BestParams(params, damage)
            except UserError:
                raise
            except Exception as error:
                path = directory / str(step)
                _warn_damaged(path, error)
                damage = damage or f"{path} is damaged ({_reason(error)})"
    raise UserError(f"no checkpoint in {directory} can be read: train this stage first")


def require_usable_path(directory: Path) -> None:
    """Raise UserError if checkpoints written to this path would be unreadable.

    Orbax finds the files of an array by a pattern that begins with the path, in which
    "[1]" matches "1".
    """
    _require_utf_8(directory)
    if glob.has_magic(str(Path(directory).absolute())):
        raise UserError(
            f"checkpoints cannot be written to {directory}: its absolute path contains "
            "*, ? or [; choose another directory"
        )


def _require_utf_8(directory: Path) -> None:
    """Raise UserError unless a path is UTF-8, as TensorStore requires."""
    try:
        str(Path(directory).absolute()).encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{directory} cannot hold checkpoints: its absolute path is not UTF-8; "
            "rename the directory"
        ) from error


def on_devices(abstract: Any, sharding: jax.sharding.Sharding) -> Any:
    """Set the sharding with which the arrays of an abstract pytree are restored."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), abstract
    )


def _without_result(state: TrainState, *, key: Any) -> TrainState:
    """Return the item `training`: the state without what `params` holds."""
    if state.average is None:
        return state._replace(params=None, key=key)
    return state._replace(average=None, key=key)


def _warn_damaged(path: Path, error: Exception) -> None:
    warnings.warn(
        f"checkpoint {path} cannot be read and is skipped: {_reason(error)}",
        stacklevel=3,
    )


def _reason(error: Exception) -> str:
    """Return the file that TensorStore cannot read, or the start of the message."""
    files = re.findall(r'local file "([^"]+)"', str(error))
    return f"cannot read {files[-1]}" if files else one_line(error, limit=200)


@contextlib.contextmanager
def _one_line_errors(what: str):
    """Convert any error of Orbax or the file system to a UserError."""
    try:
        yield
    except Exception as error:
        text = str(error)
        full = "No space left" in text or "RESOURCE_EXHAUSTED" in text
        reason = "the disk is full" if full else (text.splitlines() or [""])[0][:300]
        raise UserError(
            f"cannot write {what}: {reason}; earlier checkpoints are intact, rerun the "
            "same command to resume from them"
        ) from error


def _retried(read: Callable[[], T], *, unless: tuple[type[Exception], ...]) -> T:
    """Call a function; if it fails, except for an error of `unless`, call it again."""
    try:
        return read()
    except unless:
        raise
    except Exception:
        time.sleep(_RETRY_DELAY)
        return read()


class Manager(ocp.CheckpointManager):
    """Orbax's manager, with checksums of everything it writes and reads."""

    def close(self) -> None:
        """Also wait for the thread in which Orbax removes remains."""
        super().close()
        self._maybe_await_cleanup_tmp_directory()

    def metrics(self, step: int) -> dict | None:
        """Return the metrics of a step, None if they are missing or damaged.

        Orbax raises an error for some damage and does not detect the rest. A failed
        read is retried once, and ignored with a warning if it fails again.
        """
        read = super().metrics
        try:
            found = _retried(lambda: read(step), unless=_NO_METRICS)
        except _NO_METRICS:
            return None
        except OSError as error:
            warnings.warn(
                f"the validation loss of checkpoint {self.directory / str(step)} "
                f"cannot be read and is ignored: {one_line(error)}",
                stacklevel=2,
            )
            return None
        if isinstance(found, dict) and found == _metrics(found.get("validation_loss")):
            return found
        return None

    def best_first(self) -> list[int]:
        """Return the steps by validation loss; of equal losses the newest is first."""

        def rank(step):
            found = self.metrics(step)
            return math.inf if found is None else _validation_loss(found), -step

        return sorted(self.all_steps(), key=rank)

    def write(
        self,
        step: int,
        *,
        params: Any,
        training: Any,
        data: dict,
        validation_loss: float | None,
    ) -> None:
        """Start to save the items of a step: two pytrees and JSON."""
        checksum = checksums.checksum(data)
        items = ocp.args.Composite(
            params=_save_args(params),
            training=_save_args(training, data_checksum=checksum),
            data=ocp.args.JsonSave(data),
        )
        metrics = None if validation_loss is None else _metrics(validation_loss)
        self.save(step, args=items, metrics=metrics)

    def read(self, step: int, **abstract: Any) -> dict[str, Any]:
        """Return the items of a step for which abstract pytrees are given.

        `training` includes `data`. A failed read is retried once before the checkpoint
        counts as damaged, because network drives fail temporarily.

        Raises:
          UserError: the checkpoint has other arrays than the abstract items.
          Exception: the checkpoint is damaged.
        """
        return _retried(lambda: self._read(step, **abstract), unless=(UserError,))

    def _read(self, step: int, **abstract: Any) -> dict[str, Any]:
        metadata = self.item_metadata(step)
        notes = {name: metadata[name].custom_metadata for name in abstract}
        where = str(self.directory / str(step))
        for name, note in notes.items():
            stored = checksums.shapes_in(note["record"])
            require_same_shapes(stored, shapes_of(abstract[name]), where=where)
        items = {name: _restore_args(tree) for name, tree in abstract.items()}
        if "training" in abstract:
            items["data"] = ocp.args.JsonRestore()
        found = self.restore(step, args=ocp.args.Composite(**items))
        for name, note in notes.items():
            checksums.require_intact(found[name], note["record"])
        if "training" in notes:
            checksums.require_same(found["data"], notes["training"]["data_checksum"])
        return {name: found[name] for name in items}


def writable_manager(directory: Path, *, keep: int) -> Manager:
    """Open or create a directory and remove remains of interrupted saves.

    The newest `keep` checkpoints and the best by validation are kept.

    Raises:
      UserError: the path contains a wildcard, or a file is not a regular one.
    """
    require_usable_path(directory)
    require_files(directory, limit=_limit_of)
    policy = preservation_policy.AnyPreservationPolicy(
        [
            preservation_policy.LatestN(keep),
            preservation_policy.BestN(
                get_metric_fn=_validation_loss, reverse=True, n=1
            ),
        ]
    )
    options = ocp.CheckpointManagerOptions(
        preservation_policy=_ValidatedOrNewest(policy),
        best_fn=_validation_loss,
        best_mode="min",
        cleanup_tmp_directories=True,
        async_options=_async_options(),
    )
    return Manager(directory, options=options, item_handlers=_item_handlers())


def readable_manager(directory: Path) -> Manager:
    """Open a directory to read `params` in this process, without the others."""
    _require_utf_8(directory)
    require_files(directory, limit=_limit_of)
    process = jax.process_index()
    this_process = ocp.options.MultiprocessingOptions(
        primary_host=process,
        active_processes={process},
        barrier_sync_key_prefix=f"process{process}",
    )
    options = ocp.CheckpointManagerOptions(
        create=False,
        multiprocessing_options=this_process,
        save_root_metadata=False,
        best_fn=_validation_loss,
        best_mode="min",
    )
    handlers = dict.fromkeys(("training", "data"), _Unread())
    handlers["params"] = _item_handlers()["params"]
    return Manager(directory, options=options, item_handlers=handlers)


class _Unread(ocp.JsonCheckpointHandler):
    """Skips an item: Orbax reads the metadata of all items, damaged or not."""

    def metadata(self, directory: Any) -> None:
        """Return no metadata."""
        del directory


@ocp.args.register_with_handler(_Unread, for_save=True, for_restore=True)
class _NoArgs(ocp.args.CheckpointArgs):
    """Arguments of `_Unread`, without which Orbax warns about each manager."""


def _limit_of(path: Path) -> int:
    """Return the largest size of a file: arrays are in folders `d`, others are JSON."""
    return _MAX_ARRAYS_BYTES if path.parent.name == "d" else MAX_JSON_BYTES


def _save_args(tree: Any, **notes: Any) -> ocp.args.PyTreeSave:
    notes["record"] = checksums.record_of(tree)
    return ocp.args.PyTreeSave(tree, custom_metadata=notes)


def _restore_args(abstract: Any) -> ocp.args.PyTreeRestore:
    return ocp.args.PyTreeRestore(
        item=abstract,
        restore_args=ocp.checkpoint_utils.construct_restore_args(abstract),
    )


def _metrics(validation_loss: Any) -> dict[str, Any]:
    checksum = checksums.checksum(validation_loss)
    return {"validation_loss": validation_loss, "checksum": checksum}


def _validation_loss(metrics: dict) -> float:
    return metrics["validation_loss"]


@dataclasses.dataclass(frozen=True)
class _ValidatedOrNewest(preservation_policy.PreservationPolicy):
    """Apply a policy to validated checkpoints; also keep the newest checkpoint."""

    policy: preservation_policy.AnyPreservationPolicy

    def should_preserve(self, checkpoints, *, context):
        validated = [info for info in checkpoints if info.metrics is not None]
        decisions = self.policy.should_preserve(validated, context=context)
        steps = {
            info.step
            for info, is_kept in zip(validated, decisions, strict=True)
            if is_kept
        }
        steps |= {info.step for info in checkpoints[-1:]}
        return [info.step in steps for info in checkpoints]


def _async_options() -> ocp.AsyncOptions:
    """Disable deadlines, which a jump of the clock could exceed.

    Orbax computes deadlines from the wall clock, which jumps when a laptop wakes up.
    Several processes keep them, because a process that waits for another can wait
    forever.
    """
    if jax.process_count() > 1:
        return ocp.AsyncOptions()
    return ocp.AsyncOptions(
        timeout_secs=_CENTURY,
        # Waiting for asynchronous creation has a separate deadline.
        create_directories_asynchronously=False,
    )


def _item_handlers() -> dict[str, ocp.CheckpointHandler]:
    """Write a replicated array once, from its first copy.

    By default, Orbax lets each device write a slice and compiles a program per shape to
    cut the slices: a minute for a small network on eight devices.
    """
    registry = ocp.type_handlers.create_type_handler_registry(
        (jax.Array, ocp.type_handlers.ArrayHandler(use_replica_parallel=False)),
    )
    return {
        "params": ocp.PyTreeCheckpointHandler(type_handler_registry=registry),
        "training": ocp.PyTreeCheckpointHandler(type_handler_registry=registry),
        "data": ocp.JsonCheckpointHandler(),
    }
