"""launch.py with a loss that is not a number at one step.

python tests/programs/launch_with_nan.py STEP FLAGS
"""

# ruff: noqa: E402

import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

import jax.numpy as jnp

from vqvae_jax.training import loop


def poisoned(make_train_step, bad_step: int):
    """The function that makes a training step whose loss is NaN once."""

    def make(*args, **kwargs):
        train_step = make_train_step(*args, **kwargs)

        def step(state, batch):
            state, metrics = train_step(state, batch)
            factor = jnp.where(state.step == bad_step, jnp.nan, 1)
            loss = metrics["loss"]
            metrics["loss"] = loss._replace(total=loss.total * factor)
            return state, metrics

        return step

    return make


if __name__ == "__main__":
    loop.make_train_step = poisoned(loop.make_train_step, int(sys.argv.pop(1)))
    runpy.run_path(str(ROOT / "launch.py"), run_name="__main__")
