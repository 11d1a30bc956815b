"""The training state, the protocol of a model, and one pure training step."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, PRNGKeyArray

from vqvae_jax import metrics as metrics_lib
from vqvae_jax.training.gradient import Batch, gradient_of


@runtime_checkable
class Model(Protocol):
    """What the training loop asks of a model; all of it is pure."""

    def init(self, key, batch):
        """Return parameters, any pytree; the batch may be used to initialise them."""

    def trainable(self, params):
        """Return params with True for each leaf that follows the gradient."""

    def loss(self, params, key, batch):
        """Return (loss, (metrics, carry)).

        A batch that is a part of another one has that one's mask as `global_mask`; the
        loss is then its share, and the losses of all parts add up to the whole's.
        `carry` is None, or arrays whose leading axis is the batch's.
        """

    def update(self, params, key, carry, *, axis_name=None):
        """Return params after what the gradient does not do, such as an EMA."""

    def evaluate(self, params, batch):
        """Return metrics without dropout or any change."""


class TrainState(NamedTuple):
    """All that a step reads and writes.

    step: `[]` int32, steps done.
    params: the model's parameters, its codebook among them.
    opt_state: the optimiser's.
    key: the run's key; each step folds its number into it.
    average: the moving average of `params`, codebook included; None without one.
    """

    step: Int[Array, ""]
    params: Any
    opt_state: Any
    key: PRNGKeyArray
    average: Any = None

    @property
    def result(self) -> Any:
        """The parameters that validation and users get: the average if there is one."""
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
    """Initialise parameters, optimiser and, with a decay, the parameters' average."""
    params_key, run_key = jax.random.split(key)
    params = model.init(params_key, batch)
    # A copy: a step that is given its state's memory cannot be given an array twice.
    average = jax.tree.map(jnp.copy, params) if params_ema_decay > 0 else None
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=optimizer.init(params),
        key=run_key,
        average=average,
    )


def average_params(average: Any, params: Any, step: Int[Array, ""], *, decay: float):
    """Return the moving average of parameters after one more step.

    `step` is t, the steps done before this one. The decay is
    min(decay, (1 + t) / (10 + t)), the `num_updates` rule of TensorFlow's
    `tf.train.ExponentialMovingAverage`: with a constant decay of 0.999 the random
    initialisation would still weigh 37 % after 1000 steps.

    A codebook among the parameters is averaged like the rest, its counts and sums too:
    the average encoder needs the embeddings that go with it, and nothing reads counts
    and sums of an average. What is no float is taken from `params`.
    """
    t = jnp.asarray(step, jnp.float32)
    step_size = 1.0 - jnp.minimum(decay, (1.0 + t) / (10.0 + t))

    def move(new, old):
        if not jnp.issubdtype(new.dtype, jnp.floating):
            return new
        return optax.incremental_update(new, old, step_size)

    return jax.tree.map(move, params, average)


def make_train_step(
    model: Model,
    optimizer: optax.GradientTransformation,
    *,
    params_ema_decay: float = 0.0,
    accumulate: int = 1,
    axis_name: str | None = None,
) -> TrainStep:
    """Return the pure function (state, batch) -> (state, metrics).

    With a `params_ema_decay` the state, from `init_state` with the same one, holds an
    average of the parameters, which moves after them.

    Under jit with a batch sharded over devices its sums are sums over all devices.
    Inside pmap or shard_map give the mapped `axis_name`: what the devices have are
    parts of one batch, and all get the step of the whole. With `accumulate` above 1
    the forward and backward passes take so many parts of a batch one after the other.
    """

    def train_step(state: TrainState, batch: Batch):
        step_key = jax.random.fold_in(state.key, state.step)
        loss_key, update_key = jax.random.split(step_key)
        gradient, metrics, carry = gradient_of(
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
