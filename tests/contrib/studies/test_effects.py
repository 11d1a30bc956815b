"""Effects of options and of seeds, on hand-computed examples."""

import math

import pytest

from vqvae_jax.contrib.studies.effects import Effect, effect, spread

SETTINGS = {
    "0.1": [{"psnr_db": 20.0}, {"psnr_db": 22.0}],
    "0.5": [{"psnr_db": 23.0}, {"psnr_db": 23.5}],
    "2.0": [{"psnr_db": 19.0}, {}],
}


def test_spread_ignores_diverged_seeds():
    assert spread(SETTINGS["0.1"], "psnr_db") == (21.0, 20.0, 22.0)
    assert spread(SETTINGS["2.0"], "psnr_db") == (19.0, 19.0, 19.0)
    assert all(math.isnan(x) for x in spread([{}, {}], "psnr_db"))


def test_settings_without_the_metric_are_ignored():
    """A density has no bits/dim, unlike the other settings."""
    bits = {"psnr_db": 20.0, "bits_per_dim": 3.0}
    settings = {"gaussian": [bits, {}], "mse": [{"psnr_db": 21.0}] * 2}
    assert math.isnan(spread(settings["mse"], "bits_per_dim").mean)
    assert effect(settings, "bits_per_dim") == (0.0, 0.0)


def test_effect_is_range_of_means_and_largest_range_over_seeds():
    found = effect(SETTINGS, "psnr_db")
    assert found == pytest.approx(Effect(across_values=23.25 - 19.0, across_seeds=2.0))


def test_effect_is_nan_if_all_seeds_diverged():
    found = effect(SETTINGS | {"9.0": [{}]}, "psnr_db")
    assert found.across_values == pytest.approx(4.25)
    assert all(math.isnan(x) for x in effect({"9.0": [{}]}, "psnr_db"))
