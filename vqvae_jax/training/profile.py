"""A profile of some training steps, for TensorBoard and XProf to open."""

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path

import jax

from vqvae_jax.training.state import TrainStep

# Steps that are left out first: they compile, and wait for the first data.
_WARM_UP = 10


def steps_to_profile(num_steps: int, *, done: int, total: int) -> range:
    """Return which steps, counted from 1, a process profiles.

    They come after its first ten steps, or earlier where no more than they are left.

    Args:
      num_steps: how many; 0 for none.
      done: steps that were done before this process.
      total: steps after which training ends.
    """
    first = max(done, min(done + _WARM_UP, total - num_steps)) + 1
    return range(first, min(first + num_steps, total + 1))


@contextlib.contextmanager
def profiled(
    train_step: TrainStep, directory: Path, *, steps: range, done: int
) -> Iterator[TrainStep]:
    """Give the training step, which then writes a profile of some calls.

    Args:
      train_step: called for step `done` + 1 first, then for each step after it.
      directory: where the profile is written, as `plugins/profile/<time>/`.
      steps: those to profile; none costs nothing.
      done: steps done before.
    """
    if not steps:
        yield train_step
        return
    numbers = itertools.count(done + 1)
    with contextlib.ExitStack() as trace:

        def step(state, batch):
            number = next(numbers)
            if number == steps.start:
                trace.enter_context(jax.profiler.trace(str(directory)))
            with jax.profiler.StepTraceAnnotation("train", step_num=number):
                result = train_step(state, batch)
            if number == steps[-1]:
                # The device may be behind, and what it does later would be missing.
                jax.block_until_ready(result)
                trace.close()
            return result

        yield step
