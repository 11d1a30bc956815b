"""One training step as a pure function: model protocol, state, gradient and update."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from vqvae_jax import metrics as metrics_lib
from vqvae_jax.quantizers.primitives import vary_like

Batch = Mapping[str, Any]
Loss = Callable[[Any, PRNGKeyArray, Batch], tuple[Float[Array, ""], tuple]]


@runtime_checkable
class Model(Protocol):
    """The methods of a model that training calls; all of them are pure."""

    def init(self, key, batch):
        """Return parameters, any pytree; initialisation may depend on the batch."""

    def trainable(self, params):
        """Return a pytree like `params`: True for leaves that the gradient updates."""

    def loss(self, params, key, batch):
        """Return (loss, (metrics, carry)).

        A batch that is part of a larger one holds the mask of the larger one as
        `global_mask`. Its loss is then a share: the shares of all parts sum to the loss
        of the larger batch. `carry` is None, or arrays `[B, ...]` for `update`.
        """

    def update(self, params, key, carry, *, axis_name=None):
        """Return `params` after updates other than the gradient's, such as an EMA."""

    def evaluate(self, params, batch):
        """Return metrics, computed without dropout."""


class TrainState(NamedTuple):
    """Everything that a training step reads and writes.

    step: `[]` int32, number of completed steps.
    params: parameters of the model, including its codebook.
    opt_state: state of the optimiser.
    key: key of the run; each step folds in its number.
    average: moving average of `params`, including the codebook; None if disabled.
    """

    step: Int[Array, ""]
    params: Any
    opt_state: Any
    key: PRNGKeyArray
    average: Any = None

    @property
    def result(self) -> Any:
        """The parameters to validate and publish: the average if there is one."""
        return self.params if self.average is None else self.average


TrainStep = Callable[[TrainState, Batch], tuple[TrainState, metrics_lib.Metrics]]


def init_state(
    model: Model,
    optimizer: optax.GradientTransformation,
    key: PRNGKeyArray,
    batch: Batch,
    *,
    params_ema_decay: float = 0.0,
) -> TrainState:
    """Initialise parameters, optimiser state and, if the decay is above 0, average."""
    params_key, run_key = jax.random.split(key)
    params = model.init(params_key, batch)
    # Copied because a step with donated arguments rejects an array that occurs twice.
    average = jax.tree.map(jnp.copy, params) if params_ema_decay > 0 else None
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=optimizer.init(params),
        key=run_key,
        average=average,
    )


def make_train_step(
    model: Model,
    optimizer: optax.GradientTransformation,
    *,
    params_ema_decay: float = 0.0,
    accumulate: int = 1,
    axis_name: str | None = None,
) -> TrainStep:
    """Return the pure function (state, batch) -> (state, metrics).

    Under jit, with a batch sharded over devices, all sums run over all devices.

    Args:
      model: defines the loss and the updates outside the gradient.
      optimizer: transforms the gradient.
      params_ema_decay: decay of the moving average of the parameters, the same as in
        `init_state`; 0 disables the average.
      accumulate: number of parts of the batch whose gradients are computed one after
        the other and summed.
      axis_name: mapped axis, inside pmap or shard_map. The devices hold parts of one
        batch, and each takes the step of the whole batch.
    """

    def train_step(state: TrainState, batch: Batch):
        step_key = jax.random.fold_in(state.key, state.step)
        loss_key, update_key = jax.random.split(step_key)
        gradient, metrics, carry = loss_and_gradient(
            model.loss,
            state.params,
            loss_key,
            batch,
            accumulate=accumulate,
            axis_name=axis_name,
        )
        metrics["gradient_norm"] = metrics_lib.mean(optax.tree.norm(gradient)[None])
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        params = model.update(params, update_key, carry, axis_name=axis_name)
        if params_ema_decay > 0:
            average = average_params(
                state.average, params, state.step, decay=params_ema_decay
            )
            state = state._replace(average=average)
        state = state._replace(step=state.step + 1, params=params, opt_state=opt_state)
        return state, metrics

    return train_step


class Pass(NamedTuple):
    """Results of one forward and backward pass.

    gradient: gradient of the loss with respect to the parameters.
    metrics: metrics of the model, and `loss`.
    carry: input of `Model.update`.
    """

    gradient: Any
    metrics: dict[str, Any]
    carry: Any


def loss_and_gradient(
    loss: Loss,
    params: Any,
    key: PRNGKeyArray,
    batch: Batch,
    *,
    accumulate: int = 1,
    axis_name: str | tuple[str, ...] | None = None,
) -> Pass:
    """Return the loss of a batch and its gradient, also from parts of the batch.

    Each part's loss is normalised by the mask of the whole batch. Gradients, losses and
    metrics of the parts are therefore summed, and every example has the same weight,
    whichever part it is in.

    Args:
      loss: `Model.loss`.
      params: parameters of the model.
      key: key for dropout and the like; each part and device derives its own.
      batch: arrays `[B, ...]`, including `mask`.
      accumulate: number of parts to process one after the other; divides B. Memory
        holds the activations of one part.
      axis_name: mapped axes of a pmap, vmap or shard_map whose devices hold parts of
        one batch. Gradient and metrics are those of the whole batch; the carry is that
        of this device, as `Model.update` expects.
    """
    global_mask = batch["mask"]
    if axis_name is not None:
        # The gradient of this device's part only; the psum below sums over devices.
        params = vary_like(params, global_mask)
        key = jax.random.fold_in(key, lax.axis_index(axis_name))
        global_mask = lax.all_gather(global_mask, axis_name, tiled=True)

    def of_part(key, part):
        if part["mask"].shape != global_mask.shape:
            part = {**part, "global_mask": global_mask}
        value_and_grad = jax.value_and_grad(loss, has_aux=True)
        (share, (metrics, carry)), gradient = value_and_grad(params, key, part)
        return (gradient, share, metrics), carry

    if accumulate == 1:
        sums, carry = of_part(key, batch)
    else:
        keys = jax.random.split(key, accumulate)
        sums, carries = _scan_sum(of_part, keys, _split(batch, accumulate))
        carry = _join(carries)
    if axis_name is not None:
        sums = lax.psum(sums, axis_name)
    gradient, value, metrics = sums
    return Pass(gradient, {**metrics, "loss": metrics_lib.mean(value[None])}, carry)


def average_params(average: Any, params: Any, step: Int[Array, ""], *, decay: float):
    """Return the moving average of the parameters after one more step.

    With t = `step`, the number of steps before this one, the decay is
    min(decay, (1 + t) / (10 + t)), the `num_updates` rule of TensorFlow's
    `tf.train.ExponentialMovingAverage`. With a constant decay of 0.999 the random
    initialisation would still have a weight of 37 % after 1000 steps.

    A codebook is averaged like all other parameters, including its counts and sums: the
    averaged encoder needs matching embeddings, and nothing reads averaged counts and
    sums. Leaves that are not floating point are copied from `params`.
    """
    t = jnp.asarray(step, jnp.float32)
    step_size = 1.0 - jnp.minimum(decay, (1.0 + t) / (10.0 + t))

    def move(new, old):
        if not jnp.issubdtype(new.dtype, jnp.floating):
            return new
        return optax.incremental_update(new, old, step_size)

    return jax.tree.map(move, params, average)


def _scan_sum(function, *stacked):
    """Scan `function` -> (terms, carry) over leading axes; sum terms, stack carries."""
    first = jax.tree.map(lambda x: x[0], stacked)
    shapes, _ = jax.eval_shape(function, *first)

    def add(sums, arguments):
        terms, carry = function(*arguments)
        return jax.tree.map(jnp.add, sums, terms), carry

    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    return lax.scan(add, zeros, stacked)


def _split(batch: Batch, number: int) -> Batch:
    """Reshape `[B, ...]` to `[number, B / number, ...]`.

    Part j consists of rows j, j + number, ... rather than consecutive rows, so that
    each device already holds its rows of every part.
    """
    return jax.tree.map(
        lambda x: x.reshape(-1, number, *x.shape[1:]).swapaxes(0, 1), dict(batch)
    )


def _join(parts: Any) -> Any:
    """Invert `_split`."""
    return jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[2:]), parts)
