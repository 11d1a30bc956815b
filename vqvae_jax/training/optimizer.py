"""Adam (section 4) as an optax chain, for the leaves that follow the gradient."""

from typing import Any

import jax
import optax

from vqvae_jax.training.config import TrainingConfig


def learning_rate(config: TrainingConfig) -> optax.Schedule:
    """Return the schedule: a linear warm-up, then constant or a cosine down to 0."""
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
    """Build the optimiser; leaves marked False in `trainable` neither move nor cost."""
    adam = optax.adam(learning_rate(config), b1=config.beta1)
    if config.gradient_clip > 0:
        clip = optax.clip_by_global_norm(config.gradient_clip)
        adam = optax.chain(clip, adam)
    labels = jax.tree.map(lambda t: "adam" if t else "frozen", trainable)
    return optax.partition({"adam": adam, "frozen": optax.set_to_zero()}, labels)
