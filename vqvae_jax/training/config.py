"""The `training` and `prior_training` sections of a config, and their optimiser."""

import dataclasses
from typing import Annotated, Any, Literal

import jax
import optax

from vqvae_jax import options
from vqvae_jax.runtime.errors import require

# Larger batches cannot fit in memory.
MAX_BATCH = 2**20


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Options of one training run.

    Attributes:
      steps: number of gradient steps; 0 keeps the parameters of `init_from`.
      init_from: trained model whose parameters training starts from, those of this
        stage: a run's workdir, a model.safetensors, a released model by name or
        hf://user/name; "" for new parameters.
      batch_size: examples per step, over all devices.
      learning_rate: peak learning rate of Adam.
      beta1: decay rate of Adam's first moment; GANs train better below 0.9.
      schedule: "constant", as in the paper, or "cosine", which reaches 0 at the last
        step.
      warmup_steps: steps of linear increase from 0 to learning_rate.
      weight_decay: decay of kernels and other matrices, decoupled from the gradient
        (AdamW), times the learning rate; 0 disables it.
      gradient_clip: maximum global norm of the gradient; 0 disables clipping.
      params_ema_decay: decay of the moving average of the parameters, which validation
        and sampling then use; 0 disables it.
      patience: number of validations without a new best that ends training; 0 disables
        early stopping.
      log_every: steps between two lines of metrics.
      checkpoint_every: steps between two validations, each followed by a checkpoint.
      steps_per_call: steps that the devices take before the host is involved again:
        faster where a step takes less than a few milliseconds. Divides log_every and
        checkpoint_every. Changes no result.
      accumulate: number of parts of a batch that are processed one after the other to
        save memory; the step is that of the whole batch, except for random draws and
        an entropy term of the quantizer.
      keep: number of newest checkpoints to keep, in addition to the best by validation.
      init_batches: number of batches that data-dependent initialisation uses at once.
      profile_steps: number of steps to profile after the first ten calls of a process,
        rounded up to whole calls; 0 for none.
    """

    steps: Annotated[int, ">= 0"] = 250_000
    init_from: str = ""
    batch_size: Annotated[int, ">= 1"] = 128
    learning_rate: Annotated[float, "> 0"] = 2e-4
    beta1: Annotated[float, ">= 0", "< 1"] = 0.9
    schedule: Literal["constant", "cosine"] = "constant"
    warmup_steps: Annotated[int, ">= 0"] = 0
    weight_decay: Annotated[float, ">= 0"] = 0.0
    gradient_clip: Annotated[float, ">= 0"] = 0.0
    params_ema_decay: Annotated[float, ">= 0", "< 1"] = 0.0
    patience: Annotated[int, ">= 0"] = 0
    log_every: Annotated[int, ">= 1"] = 100
    checkpoint_every: Annotated[int, ">= 1"] = 1000
    steps_per_call: Annotated[int, ">= 1"] = 1
    accumulate: Annotated[int, ">= 1"] = 1
    keep: Annotated[int, ">= 1"] = 2
    init_batches: Annotated[int, ">= 1"] = 1
    profile_steps: Annotated[int, ">= 0"] = 0

    def __post_init__(self):
        """Check every option; UserError names the first wrong one."""
        options.check(self)
        require(
            self.steps > 0 or self.init_from != "",
            "steps must be >= 1 without init_from, got 0",
        )
        together = self.batch_size * self.init_batches
        require(
            together <= MAX_BATCH,
            f"init_batches={self.init_batches} of batch_size={self.batch_size} are "
            f"{together} examples at once, more than {MAX_BATCH}",
        )
        for name in ("log_every", "checkpoint_every"):
            require(
                getattr(self, name) % self.steps_per_call == 0,
                f"{name}={getattr(self, name)} must be a multiple of "
                f"steps_per_call={self.steps_per_call}",
            )
        require(
            self.batch_size % self.accumulate == 0,
            f"batch_size must be a multiple of accumulate, got {self.batch_size} and "
            f"{self.accumulate}",
        )


def learning_rate(config: TrainingConfig) -> optax.Schedule:
    """Return the schedule: linear warm-up, then constant or cosine decay to 0."""
    peak = config.learning_rate
    if config.schedule == "cosine":
        after = optax.cosine_decay_schedule(
            peak, max(1, config.steps - config.warmup_steps)
        )
    else:
        after = optax.constant_schedule(peak)
    if config.warmup_steps == 0:
        return after
    warmup = optax.linear_schedule(0.0, peak, config.warmup_steps)
    return optax.join_schedules([warmup, after], [config.warmup_steps])


def make_optimizer(
    config: TrainingConfig, trainable: Any
) -> optax.GradientTransformation:
    """Return Adam (section 4) for the trainable parameters, or AdamW.

    Leaves marked False are frozen and have no state.
    """
    adam = optax.adam(learning_rate(config), b1=config.beta1)
    if config.weight_decay > 0:
        adam = optax.adamw(
            learning_rate(config),
            b1=config.beta1,
            weight_decay=config.weight_decay,
            mask=lambda params: jax.tree.map(lambda x: x.ndim > 1, params),
        )
    if config.gradient_clip > 0:
        clip = optax.clip_by_global_norm(config.gradient_clip)
        adam = optax.chain(clip, adam)
    labels = jax.tree.map(lambda t: "adam" if t else "frozen", trainable)
    return optax.partition({"adam": adam, "frozen": optax.set_to_zero()}, labels)
