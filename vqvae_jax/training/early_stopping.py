"""When training ends, and the file that marks a stage as finished."""

import json
from pathlib import Path

from vqvae_jax.runtime import distributed
from vqvae_jax.runtime.errors import UserError
from vqvae_jax.runtime.safe_io import write_bytes
from vqvae_jax.training.config import TrainingConfig

_MARK = "finished.json"


def is_over(config: TrainingConfig, *, last_step: int, best_step: int | None) -> bool:
    """Return whether training ends with the checkpoint of `last_step`.

    Both steps are read from the checkpoints on disk, so a resumed run decides like an
    uninterrupted one.
    """
    if last_step >= config.steps:
        return True
    if config.patience == 0 or best_step is None:
        return False
    return last_step - best_step >= config.patience * config.checkpoint_every


def is_marked(directory: Path) -> bool:
    """Return whether the stage with checkpoints in `directory` has finished."""
    return (Path(directory) / _MARK).is_file()


def write_mark(directory: Path, *, last_step: int, best_step: int | None) -> None:
    """Mark a stage as finished, with an atomic write by the first process.

    The file is in the directory of the checkpoints, so that it is copied with them.

    Raises:
      UserError: the file cannot be written.
    """
    if not distributed.is_first():
        return
    steps = json.dumps({"last_step": last_step, "best_step": best_step}) + "\n"
    try:
        write_bytes(Path(directory) / _MARK, steps.encode())
    except UserError as error:
        raise UserError(f"{error}; rerun the same command to write it") from error


def remove_mark(directory: Path) -> None:
    """Remove the mark before further steps of a stage that had finished."""
    if distributed.is_first():
        (Path(directory) / _MARK).unlink(missing_ok=True)
