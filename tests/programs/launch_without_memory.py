"""launch.py with a training step that needs more memory than any machine has.

python tests/programs/launch_without_memory.py FLAGS
"""

# ruff: noqa: E402

import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

import jax.numpy as jnp

from vqvae_jax.training import loop


def make_train_step(*args, **kwargs):
    """Allocate in place of the training step."""
    del args, kwargs
    return jnp.zeros(2**50, jnp.uint8).block_until_ready()


if __name__ == "__main__":
    loop.make_train_step = make_train_step
    runpy.run_path(str(ROOT / "launch.py"), run_name="__main__")
