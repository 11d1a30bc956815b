"""launch.py with a VQ-VAE whose loss raises; prints the frames that lead to it.

    python tests/programs/launch_with_error.py FLAGS

Prints JSON, [file, function] of each frame of this repository from launch.py on.
"""

# ruff: noqa: E402

import json
import runpy
import sys
import traceback
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from vqvae_jax.models.vqvae import VQVAE


class LossReachedError(Exception):
    """Raised instead of computing the loss."""


def loss(self, params, key, batch):
    """Raise in place of `VQVAE.loss`."""
    raise LossReachedError


def frames_of(error: Exception) -> list[tuple[str, str]]:
    """Return file and function of each frame in this repository, outermost first."""
    frames = [
        (Path(frame.filename).relative_to(ROOT), frame.name)
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).is_relative_to(ROOT)
    ]
    # The virtual environment may be in the repository.
    frames = [(str(file), name) for file, name in frames if file.parts[0] != ".venv"]
    return frames[[file for file, _ in frames].index("launch.py") :]


if __name__ == "__main__":
    VQVAE.loss = loss
    try:
        runpy.run_path(str(ROOT / "launch.py"), run_name="__main__")
    except LossReachedError as error:
        print(json.dumps(frames_of(error)))
