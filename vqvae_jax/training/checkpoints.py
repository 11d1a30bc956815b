"""Checkpoints through Orbax: asynchronous, atomic, arrays and JSON only.

Each step keeps three items apart: `params`, which is all that a user of the model
reads, the moving average where there is one; `training`, the optimiser, key and step
and, beside an average, the parameters themselves; and `data`, the place in the data.
Checksums of all of them go with them, as Orbax has none of the arrays.
"""

import contextlib
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import jax

from vqvae_jax.runtime.errors import UserError
from vqvae_jax.training import manager
from vqvae_jax.training.state import TrainState


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
        self._manager = manager.to_write(self._directory, keep=keep)

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
        step = int(state.step)
        with _told_in_one_line(f"checkpoint {step} in {self._directory}"):
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
    with manager.to_read(directory) as opened:
        for step in opened.best_first():
            try:
                return opened.read(step, params=abstract_params)["params"]
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


def _without_result(state: TrainState, *, key: Any) -> TrainState:
    """Return what the item `params` does not hold."""
    if state.average is None:
        return state._replace(params=None, key=key)
    return state._replace(average=None, key=key)


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
