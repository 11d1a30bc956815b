"""Rate and distortion, compared with the paper's arithmetic."""

import numpy as np
import pytest

from vqvae_jax.pipeline import evaluate

# 8x8x10 codes of 9 bits.
CIFAR = {"uniform_rate": 5760.0}


def test_uniform_prior_over_640_codes_of_512():
    """Section 4.1: of 4.67 bits per value, 5760 / 3072 = 1.875 are the codes'."""
    distortion = np.array([2.0, 2.795, 3.59]) * 3072
    bits = evaluate.rate_distortion(distortion, learned_rates={}, **CIFAR)
    assert set(bits) == {
        "rate_bits_uniform_prior",
        "distortion_bits",
        "bits_uniform_prior",
    }
    np.testing.assert_array_equal(bits["rate_bits_uniform_prior"], [5760] * 3)
    per_dim = evaluate.bits_per_dim(bits, num_dims=3072)
    assert per_dim["rate_bits_per_dim_uniform_prior"] == 1.875
    assert per_dim["distortion_bits_per_dim"] == pytest.approx(2.795)
    assert per_dim["bits_per_dim_uniform_prior"] == pytest.approx(4.67)


def test_a_learned_prior_has_one_rate_per_image():
    distortion, rate = np.array([3000.0, 5000.0]), np.array([4000.0, 1000.0])
    bits = evaluate.rate_distortion(
        distortion, learned_rates={"learned_prior": rate}, **CIFAR
    )
    np.testing.assert_array_equal(bits["bits_learned_prior"], [7000, 6000])
    np.testing.assert_array_equal(bits["bits_uniform_prior"], [8760, 10760])
    per_dim = evaluate.bits_per_dim(bits, num_dims=1000)
    assert per_dim["bits_per_dim_learned_prior"] == pytest.approx(6.5)
    assert per_dim["rate_bits_per_dim_learned_prior"] == pytest.approx(2.5)


def test_a_density_has_rates_but_no_bound():
    """Section 4.2: 32x32 codes of 512 take 42.6 times less than 128x128x3 bytes."""
    bits = evaluate.rate_distortion(
        None,
        uniform_rate=32 * 32 * 9.0,
        learned_rates={"learned_prior": np.zeros(3)},
    )
    assert set(bits) == {"rate_bits_uniform_prior", "rate_bits_learned_prior"}
    rate = evaluate.bits_per_dim(bits, num_dims=128 * 128 * 3)
    assert 8 / rate["rate_bits_per_dim_uniform_prior"] == pytest.approx(42.6, abs=0.1)


def test_no_results_without_distortion_and_learned_rate():
    assert evaluate.rate_distortion(None, learned_rates={}, **CIFAR) == {}
