"""Validation of training options: messages start with the key."""

import dataclasses

import pytest
from line_runs import make_config

from vqvae_jax import options
from vqvae_jax.runtime.errors import UserError
from vqvae_jax.training.config import TrainingConfig


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps must be >= 1 without init_from, got 0"),
        ({"batch_size": 0}, "batch_size must be >= 1, got 0"),
        ({"log_every": 0}, "log_every must be >= 1, got 0"),
        ({"checkpoint_every": -1}, "checkpoint_every must be >= 1, got -1"),
        ({"accumulate": 0}, "accumulate must be >= 1, got 0"),
        ({"batch_size": 6, "accumulate": 4}, "batch_size must be a multiple of accu"),
        ({"keep": 0}, "keep must be >= 1, got 0"),
        ({"init_batches": 0}, "init_batches must be >= 1, got 0"),
        ({"learning_rate": 0.0}, r"learning_rate must be > 0, got 0\.0"),
        ({"learning_rate": float("nan")}, "learning_rate must be > 0, got nan"),
        ({"warmup_steps": -1}, "warmup_steps must be >= 0, got -1"),
        ({"gradient_clip": -1.0}, r"gradient_clip must be >= 0, got -1\.0"),
        ({"patience": -1}, "patience must be >= 0, got -1"),
        ({"profile_steps": -1}, "profile_steps must be >= 0, got -1"),
        (
            {"params_ema_decay": -0.1},
            r"params_ema_decay must be >= 0 and < 1, got -0.1",
        ),
        ({"params_ema_decay": 1.0}, r"params_ema_decay must be >= 0 and < 1, got 1.0"),
        (
            {"params_ema_decay": float("nan")},
            r"params_ema_decay must be >= 0 and < 1, got nan",
        ),
    ],
)
def test_invalid_options_raise(changes, message):
    with pytest.raises(UserError, match=f"^{message}") as caught:
        make_config(**changes)
    assert "\n" not in str(caught.value)


def test_an_unknown_schedule_raises():
    message = r"^training\.schedule must be one of constant, cosine, got 'linear'$"
    with pytest.raises(UserError, match=message):
        options.build(TrainingConfig, {"schedule": "linear"}, name="training")


def test_defaults_are_those_of_the_paper():
    """Section 4: Adam at 2e-4 without schedule, clipping or average."""
    config = TrainingConfig(steps=250_000, batch_size=128)
    assert config.learning_rate == 2e-4
    assert config.schedule == "constant"
    assert config.warmup_steps == config.gradient_clip == 0
    assert config.params_ema_decay == config.patience == 0


def test_options_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        make_config().steps = 7
