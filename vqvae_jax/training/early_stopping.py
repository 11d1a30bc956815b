"""How training ends: after all its steps or for want of patience, and with a mark."""

import json
from pathlib import Path

from vqvae_jax.runtime import distributed
from vqvae_jax.runtime.errors import UserError
from vqvae_jax.training.config import TrainingConfig

_MARK = "finished.json"


def is_over(config: TrainingConfig, *, last_step: int, best_step: int | None) -> bool:
    """Say whether training ends with the checkpoint of `last_step`.

    Both steps are known from the checkpoints on disk, so that a run that was killed and
    goes on decides as one that was not.
    """
    if last_step >= config.steps:
        return True
    if config.patience == 0 or best_step is None:
        return False
    return last_step - best_step >= config.patience * config.checkpoint_every


def is_marked(directory: Path) -> bool:
    """Say whether the stage whose checkpoints are in `directory` has ended."""
    return (Path(directory) / _MARK).is_file()


def write_mark(directory: Path, *, last_step: int, best_step: int | None) -> None:
    """Leave, whole or not at all, the mark that a stage has ended.

    It lies among the checkpoints, and goes where they go. Of several processes the
    first one leaves it.

    Raises:
      UserError: it cannot be written.
    """
    if not distributed.is_first():
        return
    path = Path(directory) / _MARK
    steps = {"last_step": last_step, "best_step": best_step}
    temporary = path.with_name(f".{_MARK}.tmp")
    try:
        temporary.write_text(json.dumps(steps) + "\n", encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror}; the same command writes it again"
        ) from error


def remove_mark(directory: Path) -> None:
    """Take the mark away, as before steps that the run that left it did not have."""
    if distributed.is_first():
        (Path(directory) / _MARK).unlink(missing_ok=True)
