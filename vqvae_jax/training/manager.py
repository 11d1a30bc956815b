"""Orbax's manager of checkpoints, as this project sets it up.

It writes arrays and JSON, and sees that what was written is what is read.
"""

import dataclasses
import math
import time
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from vqvae_jax.runtime import checksums
from vqvae_jax.runtime.errors import UserError
from vqvae_jax.runtime.tree_utils import require_same_shapes, shapes_of

_CENTURY = 100 * 365 * 86_400  # Seconds.
_PAUSE = 1.0  # Second.


class Manager(ocp.CheckpointManager):
    """Sees that what was written is what is read."""

    def close(self) -> None:
        """Wait for the removal of remains too, which Orbax leaves to a thread."""
        super().close()
        self._maybe_await_cleanup_tmp_directory()

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

    def best_first(self) -> list[int]:
        """Return the steps by validation loss, of equal ones the newest first."""

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
        """Return the items of a step that abstract pytrees are given of.

        With `training` come the `data`. What cannot be read is tried again before it
        counts as damaged: a network's drive may fail for a moment.

        Raises:
          UserError: a checkpoint holds other arrays than abstract items do.
          Exception: it is damaged.
        """
        try:
            return self._read(step, **abstract)
        except UserError:
            raise
        except Exception:
            time.sleep(_PAUSE)
            return self._read(step, **abstract)

    def _read(self, step: int, **abstract: Any) -> dict[str, Any]:
        metadata = self.item_metadata(step)
        notes = {name: metadata[name].custom_metadata for name in abstract}
        for name, note in notes.items():
            # One of an earlier version has no record: Orbax's own shapes must do.
            stored = (
                shapes_of(metadata[name].tree)
                if note is None
                else checksums.shapes_in(note["record"])
            )
            where = str(self.directory / str(step))
            require_same_shapes(stored, shapes_of(abstract[name]), where=where)
        items = {name: _restore_args(tree) for name, tree in abstract.items()}
        if "training" in abstract:
            items["data"] = ocp.args.JsonRestore()
        found = self.restore(step, args=ocp.args.Composite(**items))
        for name, note in notes.items():
            if note is not None:
                checksums.require_intact(found[name], note["record"])
                if "data_checksum" in note:
                    checksums.require_same(found["data"], note["data_checksum"])
        return {name: found[name] for name in items}


def to_write(directory: Path, *, keep: int) -> Manager:
    """Open or create a directory; remains of interrupted saves are removed.

    The last `keep` stay, and the best by validation.
    """
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
    return Manager(directory, options=options, item_handlers=_item_handlers())


def to_read(directory: Path) -> Manager:
    """Open a directory for this process alone, to read."""
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
    return Manager(directory, options=options, item_handlers=_item_handlers())


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

    Orbax reads deadlines off the clock of the day, which leaps where a laptop wakes up.
    Several processes need them all the same: who waits for another may wait in vain.
    """
    if jax.process_count() > 1:
        return ocp.AsyncOptions()
    return ocp.AsyncOptions(
        timeout_secs=_CENTURY,
        # Who waits for that has a deadline of its own.
        create_directories_asynchronously=False,
    )


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
