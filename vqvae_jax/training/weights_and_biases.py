"""Weights & Biases as one more place for metrics, for those who ask for it.

`WANDB_PROJECT=name`, wandb's own variable, asks; without it wandb is not imported. Each
stage is a run of that project, in the group of its workdir. A resumed stage goes on in
its run, which ignores the steps taken again: they are the same to the last bit.
"""

import importlib.util
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vqvae_jax.runtime import distributed
from vqvae_jax.runtime.errors import UserError, require
from vqvae_jax.training.run_name import run_name


def require_available() -> None:
    """Raise UserError where wandb is asked for and not installed."""
    if not _is_wanted():
        return
    spec = importlib.util.find_spec("wandb")
    require(
        # A folder ./wandb, which wandb leaves behind, can be imported too: as nothing.
        spec is not None and spec.origin is not None,
        "WANDB_PROJECT is set, but wandb is not installed: pip install wandb, or unset "
        "WANDB_PROJECT",
    )


class WandbRun:
    """A stage's metrics at Weights & Biases, or nowhere where nobody asked for it.

    Of several processes the first one writes.
    """

    def __init__(self, workdir: Path, stage: str):
        """Open the stage's run, the same one each time.

        Raises:
          UserError: wandb is not installed, or cannot open the run.
        """
        self._run = None
        if not _is_wanted() or not distributed.is_first():
            return
        require_available()
        import wandb

        workdir = Path(workdir).resolve()
        try:
            self._run = wandb.init(
                group=run_name(workdir),
                name=f"{run_name(workdir)}/{stage}",
                id=_kept_id(workdir / "wandb" / f"{stage}.id"),
                resume="allow",
                dir=str(workdir),
                config=_config(workdir),
            )
        except wandb.Error as error:
            raise UserError(
                f"wandb cannot open a run ({' '.join(str(error).split())}): try wandb "
                "login or WANDB_MODE=offline, or unset WANDB_PROJECT"
            ) from error

    def write(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Send the values of a step; `split` is "train" or "validation"."""
        if self._run is not None:
            named = {f"{split}/{name}": value for name, value in values.items()}
            self._run.log(named, step=step)

    def close(self, *, failed: bool) -> None:
        """End the run."""
        if self._run is not None:
            self._run.finish(exit_code=int(failed))


def _is_wanted() -> bool:
    return bool(os.environ.get("WANDB_PROJECT"))


def _kept_id(path: Path) -> str:
    """Return the id in a file, or a new one that is kept there."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(secrets.token_hex(4), encoding="utf-8")
    return path.read_text(encoding="utf-8")


def _config(workdir: Path) -> dict[str, Any]:
    path = workdir / "config.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
