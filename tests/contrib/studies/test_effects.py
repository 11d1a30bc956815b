"""Effects of options beside those of seeds, on numbers that can be read off."""

import math

import pytest

from vqvae_jax.contrib.studies.effects import Effect, effect, spread

SETTINGS = {
    "0.1": [{"psnr_db": 20.0}, {"psnr_db": 22.0}],
    "0.5": [{"psnr_db": 23.0}, {"psnr_db": 23.5}],
    "2.0": [{"psnr_db": 19.0}, {}],
}


def test_spread_is_over_the_seeds_that_ended():
    assert spread(SETTINGS["0.1"], "psnr_db") == (21.0, 20.0, 22.0)
    assert spread(SETTINGS["2.0"], "psnr_db") == (19.0, 19.0, 19.0)
    assert all(math.isnan(x) for x in spread([{}, {}], "psnr_db"))


def test_a_figure_that_a_setting_does_not_have():
    """A density has no bits/dim, and is beside settings that have."""
    bits = {"psnr_db": 20.0, "bits_per_dim": 3.0}
    settings = {"gaussian": [bits, {}], "mse": [{"psnr_db": 21.0}] * 2}
    assert math.isnan(spread(settings["mse"], "bits_per_dim").mean)
    assert effect(settings, "bits_per_dim") == (0.0, 0.0)


def test_effect_is_the_range_of_means_beside_the_widest_range_of_seeds():
    found = effect(SETTINGS, "psnr_db")
    assert found == pytest.approx(Effect(across_values=23.25 - 19.0, across_seeds=2.0))


def test_an_effect_needs_a_seed_that_ended():
    found = effect(SETTINGS | {"9.0": [{}]}, "psnr_db")
    assert found.across_values == pytest.approx(4.25)
    assert all(math.isnan(x) for x in effect({"9.0": [{}]}, "psnr_db"))
