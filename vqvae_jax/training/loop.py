"""The training loop: one for every model, none of which it knows by name."""

import collections
import contextlib
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
import optax
import rich

from vqvae_jax import metrics as metrics_lib
from vqvae_jax.runtime import distributed, preemption
from vqvae_jax.runtime.errors import DivergedError, UserError
from vqvae_jax.training import early_stopping, sharding
from vqvae_jax.training.checkpoints import Checkpoints, on_devices
from vqvae_jax.training.config import TrainingConfig
from vqvae_jax.training.evaluate import HostBatch, make_evaluation
from vqvae_jax.training.logging import MetricsLog, Progress
from vqvae_jax.training.optimizer import make_optimizer
from vqvae_jax.training.profile import profiled, steps_to_profile
from vqvae_jax.training.state import (
    Model,
    TrainState,
    init_state,
    make_train_step,
)


@runtime_checkable
class DataIterator(Protocol):
    """An endless iterator over batches whose place can be kept as JSON."""

    def __next__(self) -> HostBatch:
        """Return this process's share of the next global batch."""

    def get_state(self) -> dict:
        """Return the place in the data."""

    def set_state(self, state: dict) -> None:
        """Go to a place in the data."""


class Run(NamedTuple):
    """What the loop is given besides a model and its options.

    stage: the name under which checkpoints and metrics are kept.
    workdir: the run's directory.
    seed: decides initialisation, dropout and the like.
    train: endless batches.
    validation: makes a finite iterator over batches, the same each time.
    init_batch: the batch that parameters are initialised on.
    """

    stage: str
    workdir: Path
    seed: int
    train: DataIterator
    validation: Callable[[], Iterable[HostBatch]]
    init_batch: HostBatch


def checkpoint_directory(workdir: Path, stage: str) -> Path:
    """Return where a stage keeps its checkpoints."""
    return Path(workdir) / "checkpoints" / stage


def fit(model: Model, config: TrainingConfig, run: Run) -> None:
    """Train to `config.steps`, going on from the newest checkpoint if there is one.

    It ends earlier after `config.patience` validations without a new best. How it ended
    is marked beside the checkpoints. If the process is told to end, a checkpoint of the
    last step that was taken is the last thing written.

    Raises:
      Interrupted: the process was told to end.
      UserError: a loss term became NaN or infinite, the batch does not split over the
        devices, or a checkpoint cannot be written or read.
    """
    mesh = sharding.data_mesh()
    sharding.require_divisible(
        config.batch_size,
        mesh,
        key="training.batch_size",
        accumulate=config.accumulate,
    )
    directory = checkpoint_directory(run.workdir, run.stage)
    with Checkpoints(directory, keep=config.keep) as checkpoints:
        state, optimizer = _start(model, config, run, mesh, checkpoints)
        step = int(state.step)
        if _owes_validation(config, step, checkpoints) or not _is_over(
            config, step, checkpoints
        ):
            early_stopping.remove_mark(directory)
            with preemption.deferred():
                _train(model, optimizer, config, run, mesh, checkpoints, state)
        checkpoints.wait()
        last, best = checkpoints.last_step, checkpoints.best_step
        if last < config.steps:
            rich.print(
                f"{run.stage} stopped early at step {last} of {config.steps}: no "
                f"validation was better than the one at step {best}"
            )
        early_stopping.write_mark(directory, last_step=last, best_step=best)


def _train(
    model: Model,
    optimizer: optax.GradientTransformation,
    config: TrainingConfig,
    run: Run,
    mesh: jax.sharding.Mesh,
    checkpoints: Checkpoints,
    state: TrainState,
) -> None:
    """Take steps, log, validate and save until it is over."""
    step = int(state.step)
    train_step = jax.jit(
        make_train_step(
            model,
            optimizer,
            params_ema_decay=config.params_ema_decay,
            accumulate=config.accumulate,
        ),
        out_shardings=sharding.replicated(mesh),
        donate_argnums=0,
    )
    evaluation = make_evaluation(model, mesh)
    window: list[metrics_lib.Metrics] = []
    to_profile = steps_to_profile(config.profile_steps, done=step, total=config.steps)
    directory = Path(run.workdir) / "profile" / run.stage
    with (
        profiled(train_step, directory, steps=to_profile, done=step) as train_step,
        MetricsLog(run.workdir, run.stage, start_step=step) as log,
        Progress(run.stage, step, config.steps, config.batch_size) as progress,
    ):

        def validate(state: TrainState, place: dict, step: int) -> None:
            with progress.paused():
                batches = run.validation()
                if jax.process_count() == 1:
                    batches = preemption.checked(batches)
                values = metrics_lib.compute(evaluation(state.result, batches))
                _require_finite(values, step, run, checkpoints)
                log.write(step, "validation", values)
                checkpoints.save(state, place, validation_loss=values["loss"])

        place, batches = run.train.get_state(), _prefetch(run.train, mesh)
        try:
            if _owes_validation(config, step, checkpoints):
                validate(state, place, step)
            while not _is_over(config, step, checkpoints):
                batch, place = next(batches)
                state, metrics = train_step(state, batch)
                window.append(metrics)
                step += 1
                is_due = _is_due(config, step)
                is_logged = is_due or step % config.log_every == 0
                is_interrupted = _is_interrupted(is_logged=is_logged)
                if is_logged or is_interrupted:
                    values = _window_values(window, step, run, checkpoints)
                    window = []
                    values["examples_per_second"] = progress.advance(step, values)
                    log.write(step, "train", values)
                if is_interrupted:
                    raise preemption.Interrupted
                if is_due:
                    validate(state, place, step)
        except preemption.Interrupted as interrupted:
            if step != checkpoints.last_step:
                checkpoints.save(state, place, validation_loss=None)
            checkpoints.wait()
            raise preemption.Interrupted(
                f"{run.stage} is saved at step {step} of {config.steps}"
            ) from interrupted


def _is_interrupted(*, is_logged: bool) -> bool:
    """Say whether this process or another one of the run was told to end.

    Several agree on it where they log: to do so at each step would slow them down.
    """
    is_told = preemption.has_come()
    if jax.process_count() == 1:
        return is_told
    return is_logged and bool(distributed.whole(np.array([is_told])).any())


def _is_due(config: TrainingConfig, step: int) -> bool:
    return step == config.steps or step % config.checkpoint_every == 0


def _owes_validation(
    config: TrainingConfig, step: int, checkpoints: Checkpoints
) -> bool:
    """Say whether the checkpoint of a step was saved in place of a validation."""
    return (
        step == checkpoints.last_step
        and _is_due(config, step)
        and not checkpoints.is_validated(step)
    )


def _is_over(config: TrainingConfig, step: int, checkpoints: Checkpoints) -> bool:
    return early_stopping.is_over(
        config, last_step=step, best_step=checkpoints.best_step
    )


def _start(
    model: Model,
    config: TrainingConfig,
    run: Run,
    mesh: jax.sharding.Mesh,
    checkpoints: Checkpoints,
) -> tuple[TrainState, optax.GradientTransformation]:
    """Return the state to go on from, with the data iterator moved to its place."""
    key = jax.random.key(run.seed)
    init_batch = sharding.put_batch(run.init_batch, mesh)
    abstract_params = jax.eval_shape(model.init, key, init_batch)
    optimizer = make_optimizer(config, model.trainable(abstract_params))

    def init(key, batch):
        return init_state(
            model, optimizer, key, batch, params_ema_decay=config.params_ema_decay
        )

    replicated = sharding.replicated(mesh)
    abstract = on_devices(jax.eval_shape(init, key, init_batch), replicated)
    restored = checkpoints.restore_latest(abstract)
    if restored is None:
        initialise = jax.jit(
            init, out_shardings=replicated, compiler_options=_for_one_run(mesh)
        )
        return initialise(key, init_batch), optimizer
    run.train.set_state(restored.data)
    return restored.state, optimizer


def _for_one_run(mesh: jax.sharding.Mesh) -> dict[str, int] | None:
    """Return options that compile fast where the program runs once.

    On a CPU, LLVM takes two seconds to optimise the random numbers of each parameter.
    """
    if mesh.devices.flat[0].platform == "cpu":
        return {"xla_backend_optimization_level": 0}
    return None


def _prefetch(
    iterator: DataIterator, mesh: jax.sharding.Mesh, *, ahead: int = 2
) -> Iterator[tuple[Any, dict]]:
    """Yield device batches, each with the place in the data just after it."""
    queue = collections.deque()
    while True:
        while len(queue) <= ahead:
            batch = sharding.put_batch(next(iterator), mesh)
            queue.append((batch, iterator.get_state()))
        yield queue.popleft()


def _window_values(
    window: list[metrics_lib.Metrics], step: int, run: Run, checkpoints: Checkpoints
) -> dict[str, float]:
    """Fetch the metrics of the last steps, check each step's and average them."""
    window = jax.device_get(window)
    for number, metrics in enumerate(window, start=step - len(window) + 1):
        _require_finite(metrics_lib.compute(metrics), number, run, checkpoints)
    return metrics_lib.compute(metrics_lib.total(window))


def _require_finite(
    values: dict[str, float], step: int, run: Run, checkpoints: Checkpoints
) -> None:
    term = next((n for n, v in values.items() if not math.isfinite(v)), None)
    if term is None:
        return
    # A checkpoint that could not be written is not among the good ones.
    with contextlib.suppress(UserError):
        checkpoints.wait()
    last = checkpoints.last_step
    directory = checkpoint_directory(run.workdir, run.stage)
    good = f"{directory}/{last}" if last is not None else "none yet"
    raise DivergedError(
        f"{run.stage}: {term} is {values[term]} at step {step}; the last good "
        f"checkpoint is {good}. Lower the learning rate, clip gradients or compute in "
        "float32, in a new workdir"
    )
