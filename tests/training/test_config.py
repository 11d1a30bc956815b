"""Options are checked before anything is built, and the message names the key."""

import dataclasses

import pytest

from vqvae_jax.runtime.errors import UserError
from vqvae_jax.training.config import TrainingConfig


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"log_every": 0}, "log_every must be at least 1"),
        ({"checkpoint_every": -1}, "checkpoint_every must be at least 1, got -1"),
        ({"accumulate": 0}, "accumulate must be at least 1, got 0"),
        ({"batch_size": 6, "accumulate": 4}, "batch_size must be a multiple of accu"),
        ({"keep": 0}, "keep must be at least 1"),
        ({"init_batches": 0}, "init_batches must be at least 1"),
        ({"learning_rate": 0.0}, r"learning_rate must be above 0, got 0\.0"),
        ({"learning_rate": float("nan")}, "learning_rate must be above 0"),
        ({"warmup_steps": -1}, "warmup_steps must not be negative"),
        ({"gradient_clip": -1.0}, "gradient_clip must not be negative"),
        ({"patience": -1}, "patience must not be negative, got -1"),
        ({"profile_steps": -1}, "profile_steps must not be negative, got -1"),
        ({"params_ema_decay": -0.1}, r"params_ema_decay must be in \[0, 1\), got -0.1"),
        ({"params_ema_decay": 1.0}, r"params_ema_decay must be in \[0, 1\), got 1.0"),
        ({"params_ema_decay": float("nan")}, r"params_ema_decay must be in \[0, 1\)"),
        ({"schedule": "linear"}, "schedule must be constant or cosine, got 'linear'"),
    ],
)
def test_impossible_options(make_config, changes, message):
    with pytest.raises(UserError, match=f"^{message}") as caught:
        make_config(**changes)
    assert "\n" not in str(caught.value)


def test_what_is_not_said_is_the_papers():
    """Section 4: Adam at 2e-4, neither schedule nor clipping nor average."""
    config = TrainingConfig(steps=250_000, batch_size=128)
    assert config.learning_rate == 2e-4
    assert config.schedule == "constant"
    assert config.warmup_steps == config.gradient_clip == 0
    assert config.params_ema_decay == config.patience == 0


def test_options_do_not_change(make_config):
    with pytest.raises(dataclasses.FrozenInstanceError):
        make_config().steps = 7
