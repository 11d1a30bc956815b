"""Metrics logged to Weights & Biases if `WANDB_PROJECT`, a variable of wandb, is set.

Otherwise wandb is not imported. Each stage is a run of the project, in the group of its
workdir. A resumed stage continues its run, which ignores the repeated steps; they are
bit-identical.
"""

import importlib.util
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vqvae_jax.runtime import distributed, safe_io
from vqvae_jax.runtime.errors import UserError, one_line, require


def require_available() -> None:
    """Raise UserError if `WANDB_PROJECT` is set and wandb is not installed."""
    if not _is_enabled():
        return
    spec = importlib.util.find_spec("wandb")
    require(
        # A folder ./wandb of a former run is importable, as a namespace package.
        spec is not None and spec.origin is not None,
        "WANDB_PROJECT is set, but wandb is not installed: pip install wandb, or unset "
        "WANDB_PROJECT",
    )


class WandbRun:
    """The run of one stage; does nothing unless `WANDB_PROJECT` is set.

    Only the first of several processes writes.
    """

    def __init__(self, workdir: Path, stage: str, *, group: str):
        """Open the run of a stage, or reopen it if the stage is resumed.

        Raises:
          UserError: wandb is not installed, or cannot open the run.
        """
        self._run = None
        if not _is_enabled() or not distributed.is_first():
            return
        require_available()
        import wandb

        workdir = Path(workdir).resolve()
        file = workdir / "wandb" / f"{stage}.id"
        run_id = _stored_id(file) or secrets.token_hex(4)
        try:
            self._run = wandb.init(
                group=group,
                name=f"{group}/{stage}",
                id=run_id,
                resume="allow",
                dir=str(workdir),
                config=_config(workdir),
            )
        except wandb.Error as error:
            raise UserError(
                f"wandb cannot open a run ({one_line(error)}): try wandb "
                "login or WANDB_MODE=offline, or unset WANDB_PROJECT"
            ) from error
        # Written once there is a run to resume.
        safe_io.write_bytes(file, run_id.encode())

    def write(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Send the values of a step; `split` is "train" or "validation"."""
        if self._run is not None:
            named = {f"{split}/{name}": value for name, value in values.items()}
            self._run.log(named, step=step)

    def close(self, *, failed: bool) -> None:
        """End the run."""
        if self._run is not None:
            self._run.finish(exit_code=int(failed))


def _is_enabled() -> bool:
    return bool(os.environ.get("WANDB_PROJECT"))


def _stored_id(path: Path) -> str:
    """Return the id in a file; "" if the file is missing."""
    return safe_io.read_text(path) if path.exists() else ""


def _config(workdir: Path) -> dict[str, Any]:
    path = workdir / "config.json"
    return safe_io.read_json(path) if path.exists() else {}
