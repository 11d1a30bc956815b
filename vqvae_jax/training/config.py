"""How a model is trained: the `training` and `prior_training` sections of a config."""

import dataclasses

from vqvae_jax.runtime.errors import require

# More examples than that are never in memory at once.
MAX_BATCH = 2**20


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Options of one training run.

    Attributes:
      steps: gradient steps.
      batch_size: examples of one step, over all devices.
      learning_rate: Adam's, at its peak.
      beta1: Adam's decay of the mean gradient; GANs want less than the usual 0.9.
      schedule: "constant" (the paper's) or "cosine" down to 0 at the last step.
      warmup_steps: steps of linear growth from 0 to learning_rate.
      gradient_clip: largest global norm of a gradient; 0 for no clipping.
      params_ema_decay: of the moving average of the parameters, which is what is
        validated, and sampled from; 0 for none.
      patience: validations without a new best after which training ends; 0 for never.
      log_every: steps between two lines of metrics.
      checkpoint_every: steps between two validations, each followed by a checkpoint.
      accumulate: parts that a batch is taken in, one after the other, for want of
        memory; the step is the whole batch's.
      keep: checkpoints kept besides the best by validation.
      init_batches: batches that data-dependent initialisation sees at once.
      profile_steps: steps to write a profile of, after the first ten that a process
        takes; 0 for none.
    """

    steps: int
    batch_size: int
    learning_rate: float = 2e-4
    beta1: float = 0.9
    schedule: str = "constant"
    warmup_steps: int = 0
    gradient_clip: float = 0.0
    params_ema_decay: float = 0.0
    patience: int = 0
    log_every: int = 100
    checkpoint_every: int = 1000
    accumulate: int = 1
    keep: int = 2
    init_batches: int = 1
    profile_steps: int = 0

    def __post_init__(self):
        """Check every option, so that a mistake is told before anything is built."""
        at_least_1 = (
            "steps",
            "batch_size",
            "log_every",
            "checkpoint_every",
            "accumulate",
            "keep",
            "init_batches",
        )
        for name in at_least_1:
            value = getattr(self, name)
            require(value >= 1, f"{name} must be at least 1, got {value}")
        together = self.batch_size * self.init_batches
        require(
            together <= MAX_BATCH,
            f"init_batches={self.init_batches} of batch_size={self.batch_size} are "
            f"{together} examples at once, more than {MAX_BATCH}",
        )
        require(
            self.batch_size % self.accumulate == 0,
            f"batch_size must be a multiple of accumulate, got {self.batch_size} and "
            f"{self.accumulate}",
        )
        require(
            self.learning_rate > 0,
            f"learning_rate must be above 0, got {self.learning_rate}",
        )
        require(0 <= self.beta1 < 1, f"beta1 must be in [0, 1), got {self.beta1}")
        for name in ("warmup_steps", "gradient_clip", "patience", "profile_steps"):
            value = getattr(self, name)
            require(value >= 0, f"{name} must not be negative, got {value}")
        require(
            0 <= self.params_ema_decay < 1,
            f"params_ema_decay must be in [0, 1), got {self.params_ema_decay}",
        )
        require(
            self.schedule in ("constant", "cosine"),
            f"schedule must be constant or cosine, got {self.schedule!r}",
        )
