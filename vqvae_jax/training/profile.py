"""Profiles of training steps, to view in TensorBoard or XProf."""

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path

import jax

from vqvae_jax.training.step import TrainStep

# Steps to skip first: they compile and wait for the first data.
_WARM_UP = 10


def steps_to_profile(num_steps: int, *, done: int, total: int) -> range:
    """Return the steps, counted from 1, that a process profiles.

    They follow its first ten steps, or start earlier if too few steps remain.

    Args:
      num_steps: number of steps to profile; 0 for none.
      done: number of steps completed before this process started.
      total: number of steps in the whole run.
    """
    first = max(done, min(done + _WARM_UP, total - num_steps)) + 1
    return range(first, min(first + num_steps, total + 1))


@contextlib.contextmanager
def profiled(
    train_step: TrainStep, directory: Path, *, steps: range, done: int
) -> Iterator[TrainStep]:
    """Yield the training step, wrapped to write a profile of some of its calls.

    Args:
      train_step: called for step `done` + 1 first, then for each following step.
      directory: the profile is written to `plugins/profile/<time>/` in it.
      steps: the steps to profile; if empty, `train_step` is not wrapped.
      done: number of steps completed before.
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
                # The device works asynchronously: include its last work.
                jax.block_until_ready(result)
                trace.close()
            return result

        yield step
