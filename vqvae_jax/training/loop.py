"""The training loop and exact evaluation, the same for every model."""

import collections
import contextlib
import functools
import math
import operator
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from vqvae_jax import metrics as metrics_lib
from vqvae_jax.runtime import distributed, preemption
from vqvae_jax.runtime.errors import DivergedError, UserError
from vqvae_jax.runtime.terminal import print_line
from vqvae_jax.training import early_stopping, sharding
from vqvae_jax.training.checkpoints import Checkpoints, on_devices
from vqvae_jax.training.config import TrainingConfig, make_optimizer
from vqvae_jax.training.logging import MetricsLog, Progress
from vqvae_jax.training.profile import profiled, steps_to_profile
from vqvae_jax.training.step import (
    Model,
    TrainState,
    TrainStep,
    init_state,
    make_train_step,
)

HostBatch = dict[str, np.ndarray]
Evaluation = Callable[[Any, Iterable[HostBatch]], metrics_lib.Metrics]


@runtime_checkable
class DataIterator(Protocol):
    """An endless iterator over batches, with a state that JSON can hold."""

    @property
    def whole(self) -> HostBatch:
        """All examples, if batches are their indices; otherwise {}."""

    def gather(self, batch: Any, whole: Any) -> Any:
        """Return a batch from indices and all examples, under jit."""

    def __next__(self) -> HostBatch:
        """Return this process's rows of the next global batch."""

    def get_state(self) -> dict:
        """Return the position in the data."""

    def set_state(self, state: dict) -> None:
        """Continue from a position in the data."""


class Run(NamedTuple):
    """The inputs of `fit` other than the model and its options.

    stage: name under which checkpoints and metrics are stored.
    workdir: directory of the run.
    seed: determines initialisation, dropout and the like.
    train: endless training batches.
    validation: returns a finite iterator over the validation batches.
    init_batch: the batch for data-dependent initialisation.
    initial: returns the parameters to start from; None for the model's own.
    """

    stage: str
    workdir: Path
    seed: int
    train: DataIterator
    validation: Callable[[], Iterable[HostBatch]]
    init_batch: HostBatch
    initial: Callable[[], Any] | None = None


def checkpoint_directory(workdir: Path, stage: str) -> Path:
    """Return the directory of a stage's checkpoints."""
    return Path(workdir) / "checkpoints" / stage


def fit(model: Model, config: TrainingConfig, run: Run) -> None:
    """Train for `config.steps` steps, resuming from the newest checkpoint if any.

    Training stops early after `config.patience` validations without a new best. When it
    ends, a mark is written next to the checkpoints. When the process receives SIGTERM
    or SIGINT, the last completed step is saved before `Preempted` is raised.

    Raises:
      Preempted: the process received a signal to end.
      UserError: a loss term became NaN or infinite, the batch does not split over the
        devices, the model does not fit into their memory, or a checkpoint cannot be
        written or read.
    """
    mesh = sharding.data_mesh()
    sharding.require_divisible(
        config.batch_size,
        mesh,
        key="training.batch_size",
        accumulate=config.accumulate,
    )
    directory = checkpoint_directory(run.workdir, run.stage)
    profiles = Path(run.workdir) / "profile" / run.stage
    with Checkpoints(directory, keep=config.keep) as checkpoints:
        state, optimizer = _init_or_restore(model, config, run, mesh, checkpoints)
        step = int(state.step)
        if _is_finished(config, step, checkpoints):
            _finish(config, run, checkpoints)
            return

        early_stopping.remove_mark(directory)
        train_step = make_train_step(
            model,
            optimizer,
            params_ema_decay=config.params_ema_decay,
            accumulate=config.accumulate,
        )
        jitted = functools.partial(
            jax.jit, out_shardings=sharding.replicated(mesh), donate_argnums=0
        )
        is_scanned = config.steps_per_call > 1 or bool(run.train.whole)
        if is_scanned:
            whole = sharding.put_replicated(run.train.whole, mesh)
            train_step = functools.partial(
                jitted(_scanned(train_step, run.train.gather)), whole=whole
            )
        else:
            train_step = jitted(train_step)
        evaluate = make_evaluation(model.evaluate, mesh)
        # The profiler counts calls.
        several = config.steps_per_call
        done = step // several
        to_profile = steps_to_profile(
            -(-config.profile_steps // several),
            done=done,
            total=config.steps // several,
        )
        with (
            preemption.deferred(),
            profiled(train_step, profiles, steps=to_profile, done=done) as train_step,
            MetricsLog(run.workdir, run.stage, start_step=step) as log,
            Progress(run.stage, step, config.steps, config.batch_size) as progress,
        ):

            def validate(state: TrainState, position: dict, step: int) -> None:
                with progress.paused():
                    batches = run.validation()
                    if jax.process_count() == 1:
                        batches = preemption.checked(batches)
                    values = metrics_lib.compute(evaluate(state.result, batches))
                    _require_finite(values, step, run, checkpoints)
                    log.write(step, "validation", values)
                    checkpoints.save(state, position, validation_loss=values["loss"])

            window: list[metrics_lib.Metrics] = []
            position = run.train.get_state()
            sizes = _steps_of_calls(config, step) if is_scanned else None
            batches = _prefetch(run.train, mesh, sizes=sizes)
            try:
                if _lacks_validation(config, step, checkpoints):
                    validate(state, position, step)
                while not _is_over(config, step, checkpoints):
                    batch, count, position = next(batches)
                    state, metrics = train_step(state, batch)
                    window.append(metrics)
                    step += count
                    is_due = _is_validation_due(config, step)
                    is_logged = is_due or step % config.log_every == 0
                    is_preempted = _is_preempted(is_logged=is_logged)
                    if is_logged or is_preempted:
                        window = jax.device_get(window)
                        if is_scanned:
                            window = [each for call in window for each in _split(call)]
                        values = _window_values(window, step, run, checkpoints)
                        window = []
                        values["examples_per_second"] = progress.advance(step, values)
                        log.write(step, "train", values)
                    if is_preempted:
                        raise preemption.Preempted
                    if is_due:
                        validate(state, position, step)
            except preemption.Preempted as error:
                if step != checkpoints.last_step:
                    checkpoints.save(state, position, validation_loss=None)
                checkpoints.wait()
                raise preemption.Preempted(
                    f"{run.stage} is saved at step {step} of {config.steps}"
                ) from error
        _finish(config, run, checkpoints)


def make_evaluation(
    evaluate: Callable[[Any, Any], metrics_lib.Metrics], mesh: jax.sharding.Mesh
) -> Evaluation:
    """Return the function (params, batches) -> metrics summed over all batches.

    Every example has the same weight and masked examples have none, whatever the size
    of the last batch. `evaluate` is a model's, or a function like it.
    """
    evaluate = jax.jit(evaluate, out_shardings=sharding.replicated(mesh))

    def evaluation(params: Any, batches: Iterable[HostBatch]) -> metrics_lib.Metrics:
        on_devices = (sharding.put_batch(batch, mesh) for batch in batches)
        return metrics_lib.total(evaluate(params, batch) for batch in on_devices)

    return evaluation


def _init_or_restore(
    model: Model,
    config: TrainingConfig,
    run: Run,
    mesh: jax.sharding.Mesh,
    checkpoints: Checkpoints,
) -> tuple[TrainState, optax.GradientTransformation]:
    """Return the state to start from; move the data iterator to its position."""
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
    # Gradients have the sizes of the parameters.
    leaves = jax.tree.leaves((abstract, abstract.params))
    sharding.require_memory(
        sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves),
        what=f"parameters, gradients and optimiser state of {run.stage}",
    )
    restored = checkpoints.restore_latest(abstract)
    if restored is None:
        initialise = jax.jit(
            init, out_shardings=replicated, compiler_options=_for_one_run(mesh)
        )
        state = initialise(key, init_batch)
        if run.initial is not None:
            params = sharding.put_replicated(run.initial(), mesh)
            average = None if state.average is None else jax.tree.map(jnp.copy, params)
            state = state._replace(params=params, average=average)
        return state, optimizer
    run.train.set_state(restored.data)
    return restored.state, optimizer


def _for_one_run(mesh: jax.sharding.Mesh) -> dict[str, int] | None:
    """Return compiler options that reduce compile time for a program that runs once.

    On a CPU, LLVM spends two seconds optimising the random numbers of each parameter.
    """
    if mesh.devices.flat[0].platform == "cpu":
        return {"xla_backend_optimization_level": 0}
    return None


def _finish(config: TrainingConfig, run: Run, checkpoints: Checkpoints) -> None:
    """Wait for the last checkpoint and mark the stage as finished."""
    checkpoints.wait()
    last, best = checkpoints.last_step, checkpoints.best_step
    if last < config.steps:
        print_line(
            f"{run.stage} stopped early at step {last} of {config.steps}: no "
            f"validation was better than the one at step {best}"
        )
    directory = checkpoint_directory(run.workdir, run.stage)
    early_stopping.write_mark(directory, last_step=last, best_step=best)


def _prefetch(
    iterator: DataIterator,
    mesh: jax.sharding.Mesh,
    *,
    sizes: Iterator[int] | None = None,
    ahead: int = 2,
) -> Iterator[tuple[Any, int, dict]]:
    """Yield batches on devices, their number, and the position in the data after them.

    With `sizes`, that many batches are stacked; otherwise a batch is not.
    """
    queue = collections.deque()
    while True:
        while len(queue) <= ahead:
            if sizes is None:
                count, batch = 1, sharding.put_batch(next(iterator), mesh)
            else:
                count = next(sizes)
                batches = [next(iterator) for _ in range(count)]
                batch = sharding.put_batches(batches, mesh)
            queue.append((batch, count, iterator.get_state()))
        yield queue.popleft()


def _scanned(
    train_step: TrainStep, gather: Callable[[Any, Any], Any]
) -> Callable[..., tuple[TrainState, Any]]:
    """Return (state, batches, whole) -> (state, metrics): a step for each batch.

    The metrics of all steps are stacked.
    """

    def train_steps(state: TrainState, batches: Any, *, whole: Any):
        return lax.scan(
            lambda state, batch: train_step(state, gather(batch, whole)),
            state,
            batches,
        )

    return train_steps


def _steps_of_calls(config: TrainingConfig, step: int) -> Iterator[int]:
    """Yield the steps of each call: one where steps_per_call would pass the end.

    After a resume, single steps come before the next multiple of steps_per_call, so
    that calls end where logs and checkpoints are due.
    """
    several = config.steps_per_call
    while True:
        fits = step % several == 0 and step + several <= config.steps
        count = several if fits else 1
        yield count
        step += count


def _split(stacked: metrics_lib.Metrics) -> list[metrics_lib.Metrics]:
    """Return the metrics of each step of a call."""
    steps = len(jax.tree.leaves(stacked)[0])
    return [jax.tree.map(operator.itemgetter(i), stacked) for i in range(steps)]


def _is_finished(config: TrainingConfig, step: int, checkpoints: Checkpoints) -> bool:
    return _is_over(config, step, checkpoints) and not _lacks_validation(
        config, step, checkpoints
    )


def _is_over(config: TrainingConfig, step: int, checkpoints: Checkpoints) -> bool:
    return early_stopping.is_over(
        config, last_step=step, best_step=checkpoints.best_step
    )


def _is_validation_due(config: TrainingConfig, step: int) -> bool:
    return step == config.steps or step % config.checkpoint_every == 0


def _lacks_validation(
    config: TrainingConfig, step: int, checkpoints: Checkpoints
) -> bool:
    """Return whether the newest checkpoint, or parameters to keep, lack a validation.

    Preemption saves a checkpoint without one.
    """
    is_kept = config.steps == 0 and checkpoints.last_step is None
    return is_kept or (
        step == checkpoints.last_step
        and _is_validation_due(config, step)
        and not checkpoints.is_validated(step)
    )


def _is_preempted(*, is_logged: bool) -> bool:
    """Return whether this or another process of the run received a signal to end.

    Several processes exchange this only when they log, because an exchange in every
    step would slow training down.
    """
    is_requested = preemption.requested()
    if jax.process_count() == 1:
        return is_requested
    return is_logged and bool(distributed.whole(np.array([is_requested])).any())


def _window_values(
    window: list[metrics_lib.Metrics], step: int, run: Run, checkpoints: Checkpoints
) -> dict[str, float]:
    """Check the metrics of each step since the last log, and average them."""
    for number, metrics in enumerate(window, start=step - len(window) + 1):
        _require_finite(metrics_lib.compute(metrics), number, run, checkpoints)
    return metrics_lib.compute(metrics_lib.total(window))


def _require_finite(
    values: dict[str, float], step: int, run: Run, checkpoints: Checkpoints
) -> None:
    term = next((n for n, v in values.items() if not math.isfinite(v)), None)
    if term is None:
        return
    # A checkpoint that could not be written must not be reported as good.
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
