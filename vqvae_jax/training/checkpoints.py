"""Checkpoints through Orbax: asynchronous, atomic, arrays and JSON only.

Each step keeps three items apart: `params`, which is all that a user of the model
reads, the moving average where there is one; `training`, the optimiser, key and step
and, beside an average, the parameters themselves; and `data`, the place in the data.
Checksums of all of them go with them, as Orbax has none of the arrays.
"""

import contextlib
import dataclasses
import math
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from vqvae_jax.errors import UserError
from vqvae_jax.training import digests
from vqvae_jax.training.shapes import require_same_shapes, shapes_of
from vqvae_jax.training.state import TrainState

_CENTURY = 100 * 365 * 86_400  # Seconds.


class Restored(NamedTuple):
    """A training state and the JSON state of the data iterator that goes with it."""

    state: TrainState
    data: dict


class Checkpoints:
    """The checkpoints of one stage: the last `keep`, and the best by validation.

    One that was saved without a validation, where training was interrupted, stays as
    long as it is the newest, and takes no other's place.
    """

    def __init__(self, directory: Path, *, keep: int):
        """Open or create the directory; remains of interrupted saves are removed."""
        self._directory = Path(directory).absolute()
        policy = preservation_policy.AnyPreservationPolicy(
            [
                preservation_policy.LatestN(keep),
                preservation_policy.BestN(
                    get_metric_fn=_validation_loss, reverse=True, n=1
                ),
            ]
        )
        options = ocp.CheckpointManagerOptions(
            preservation_policy=_OfValidated(policy),
            best_fn=_validation_loss,
            best_mode="min",
            cleanup_tmp_directories=True,
            async_options=_async_options(),
        )
        self._manager = _Manager(
            self._directory, options=options, item_handlers=_item_handlers()
        )

    def __enter__(self):
        return self

    def __exit__(self, error_type, error, traceback):
        try:
            with _told_in_one_line(f"the last checkpoint in {self._directory}"):
                self._manager.close()
        except UserError:
            # What ended the training says more than what it left half-written.
            if error is None:
                raise

    @property
    def last_step(self) -> int | None:
        """The newest checkpoint's step, None if there is none."""
        return self._manager.latest_step()

    @property
    def best_step(self) -> int | None:
        """The step of the lowest validation loss, of equal ones the newest."""
        return self._manager.best_step()

    def is_validated(self, step: int) -> bool:
        """Say whether a validation loss was saved with the checkpoint of a step."""
        return self._manager.metrics(step) is not None

    def save(
        self, state: TrainState, data: dict, *, validation_loss: float | None
    ) -> None:
        """Start to write a checkpoint; the step after it may go on at once.

        One of the same step that was saved without a `validation_loss` is replaced.

        Raises:
          UserError: this or the previous checkpoint could not be written.
        """
        # Given a typed key, the array handler below returns bare numbers for it.
        training = _without_result(state, key=jax.random.key_data(state.key))
        items = ocp.args.Composite(
            params=_save_args(state.result),
            training=_save_args(training, data_checksum=digests.checksum(data)),
            data=ocp.args.JsonSave(data),
        )
        step = int(state.step)
        metrics = None if validation_loss is None else _metrics(validation_loss)
        with _told_in_one_line(f"checkpoint {step} in {self._directory}"):
            if step == self.last_step and not self.is_validated(step):
                self._manager.delete(step)
            self._manager.save(step, args=items, metrics=metrics)

    def wait(self) -> None:
        """Wait until what was saved is on disk.

        Raises:
          UserError: it could not be written.
        """
        with _told_in_one_line(f"the last checkpoint in {self._directory}"):
            self._manager.wait_until_finished()

    def restore_latest(self, abstract: TrainState) -> Restored | None:
        """Return the newest state that can be read, None if there is no checkpoint.

        A checkpoint that is damaged is passed over with a warning, and removed, so that
        training can write that step again.

        Raises:
          UserError: there are checkpoints, and none can be read, or the newest is of a
            model of other sizes.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        key = jax.eval_shape(jax.random.key_data, abstract.key)
        key = on_devices(key, abstract.key.sharding)
        training = _without_result(abstract, key=key)
        items = ocp.args.Composite(
            params=_restore_args(abstract.result),
            training=_restore_args(training),
            data=ocp.args.JsonRestore(),
        )
        damaged = []
        for step in steps:
            try:
                found = self._manager.restore_intact(
                    step, items, params=abstract.result, training=training
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
                "read: remove the directory to start this stage again"
            )
        return None


def restore_params(directory: Path, abstract_params: Any) -> Any:
    """Read the parameters of the best checkpoint by validation, or of the next best.

    Only arrays and JSON are read.

    Raises:
      UserError: there is no checkpoint, none can be read, or it is of a model of other
        sizes.
    """
    directory = Path(directory).absolute()
    if not directory.is_dir():
        raise UserError(
            f"there is no checkpoint in {directory}: train this stage first"
        )
    # To read, a process needs no other one.
    own = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=own,
        active_processes={own},
        barrier_sync_key_prefix=f"process{own}",
    )
    options = ocp.CheckpointManagerOptions(
        create=False,
        multiprocessing_options=alone,
        save_root_metadata=False,
        best_fn=_validation_loss,
        best_mode="min",
    )
    with _Manager(
        directory, options=options, item_handlers=_item_handlers()
    ) as manager:

        def best_first(step):
            found = manager.metrics(step)
            return math.inf if found is None else _validation_loss(found), -step

        items = ocp.args.Composite(params=_restore_args(abstract_params))
        for step in sorted(manager.all_steps(), key=best_first):
            try:
                found = manager.restore_intact(step, items, params=abstract_params)
                return found["params"]
            except UserError:
                raise
            except Exception as error:
                _warn_damaged(directory / str(step), error)
    raise UserError(f"no checkpoint in {directory} can be read: train this stage first")


def on_devices(abstract: Any, sharding: jax.sharding.Sharding) -> Any:
    """Say where the arrays of an abstract pytree are to be restored."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), abstract
    )


class _Manager(ocp.CheckpointManager):
    """Sees that what was written is what is read."""

    def metrics(self, step: int) -> dict | None:
        """Take damaged metrics as none, where Orbax fails or does not see it."""
        try:
            found = super().metrics(step)
        except ValueError:
            return None
        if found is None or "checksum" not in found:
            return found  # Without a checksum: of an earlier version.
        is_intact = found == _metrics(found.get("validation_loss"))
        return found if is_intact else None

    def restore_intact(
        self, step: int, args: ocp.args.Composite, **abstract: Any
    ) -> ocp.args.Composite:
        """Restore items of a checkpoint; the abstract ones are pytrees.

        Raises:
          UserError: a checkpoint holds other arrays than abstract items do.
          Exception: it is damaged.
        """
        metadata = self.item_metadata(step)
        notes = {name: metadata[name].custom_metadata for name in abstract}
        for name, note in notes.items():
            # One of an earlier version has no record: Orbax's own shapes must do.
            stored = (
                shapes_of(metadata[name].tree)
                if note is None
                else digests.shapes_in(note["record"])
            )
            where = str(self.directory / str(step))
            require_same_shapes(stored, shapes_of(abstract[name]), where=where)
        found = self.restore(step, args=args)
        for name, note in notes.items():
            if note is not None:
                digests.require_intact(found[name], note["record"])
                if "data_checksum" in note:
                    digests.require_same(found["data"], note["data_checksum"])
        return found


@dataclasses.dataclass(frozen=True)
class _OfValidated(preservation_policy.PreservationPolicy):
    """A policy for checkpoints with a validation; of the others the newest stays."""

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
    """Have no deadline that a jump of the clock could pass.

    Orbax reads it off the clock of the day, which leaps where a laptop wakes up.
    Several processes need one all the same: who waits for another may wait in vain.
    """
    if jax.process_count() > 1:
        return ocp.AsyncOptions()
    return ocp.AsyncOptions(timeout_secs=_CENTURY)


def _without_result(state: TrainState, *, key: Any) -> TrainState:
    """Return what the item `params` does not hold."""
    if state.average is None:
        return state._replace(params=None, key=key)
    return state._replace(average=None, key=key)


def _item_handlers() -> dict[str, ocp.CheckpointHandler]:
    """Write a replicated array once, from its first copy.

    Orbax by default lets each device write a slice of it, and compiles a program for
    every shape to cut the slices: a minute for a small network on eight devices.
    """
    registry = ocp.type_handlers.create_type_handler_registry(
        (jax.Array, ocp.type_handlers.ArrayHandler(use_replica_parallel=False)),
    )
    return {
        "params": ocp.PyTreeCheckpointHandler(type_handler_registry=registry),
        "training": ocp.PyTreeCheckpointHandler(type_handler_registry=registry),
        "data": ocp.JsonCheckpointHandler(),
    }


def _save_args(tree: Any, **notes: Any) -> ocp.args.PyTreeSave:
    notes["record"] = digests.record_of(tree)
    return ocp.args.PyTreeSave(tree, custom_metadata=notes)


def _restore_args(abstract: Any) -> ocp.args.PyTreeRestore:
    return ocp.args.PyTreeRestore(
        item=abstract,
        restore_args=ocp.checkpoint_utils.construct_restore_args(abstract),
    )


def _metrics(validation_loss: Any) -> dict[str, Any]:
    checksum = digests.checksum(validation_loss)
    return {"validation_loss": validation_loss, "checksum": checksum}


def _validation_loss(metrics: dict) -> float:
    return metrics["validation_loss"]


def _warn_damaged(path: Path, error: Exception) -> None:
    reason = str(error).strip().splitlines()
    warnings.warn(
        f"checkpoint {path} cannot be read and is passed over: "
        f"{reason[0][:200] if reason else type(error).__name__}",
        stacklevel=3,
    )


@contextlib.contextmanager
def _told_in_one_line(what: str):
    """Turn whatever Orbax or the file system raises into one UserError."""
    try:
        yield
    except Exception as error:
        text = str(error)
        full = "No space left" in text or "RESOURCE_EXHAUSTED" in text
        reason = "the disk is full" if full else (text.splitlines() or [""])[0][:300]
        raise UserError(
            f"cannot write {what}: {reason}; earlier checkpoints are untouched, the "
            "same command goes on from them"
        ) from error
