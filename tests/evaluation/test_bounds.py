"""Bits per dimension, against the paper's own arithmetic."""

import math

import pytest

from vqvae_jax.evaluation.bounds import bits_per_dim

CIFAR = {"num_latents": 8 * 8 * 10, "num_dims": 32 * 32 * 3}


def test_uniform_prior_over_640_codes_of_512():
    """Section 4.1: 5760 bits for 3072 values."""
    bits = bits_per_dim(nats_per_dim=0.0, bits_per_code=math.log2(512), **CIFAR)
    assert bits == 1.875


def test_what_4_67_bits_leave_for_the_image():
    nats = 2.795 * math.log(2)
    bits = bits_per_dim(nats_per_dim=nats, bits_per_code=9.0, **CIFAR)
    assert bits == pytest.approx(4.67, abs=1e-12)


def test_imagenets_codes_are_42_6_times_smaller():
    """Section 4.2: 32x32 codes of 512 for 128x128x3 bytes."""
    bits = bits_per_dim(
        nats_per_dim=0.0,
        bits_per_code=math.log2(512),
        num_latents=32 * 32,
        num_dims=128 * 128 * 3,
    )
    assert 8 / bits == pytest.approx(42.6, abs=0.1)


def test_a_decoder_that_knows_nothing_costs_8_bits_and_the_codes():
    bits = bits_per_dim(nats_per_dim=math.log(256), bits_per_code=9.0, **CIFAR)
    assert bits == pytest.approx(8 + 1.875)
    free = bits_per_dim(nats_per_dim=math.log(256), bits_per_code=0.0, **CIFAR)
    assert free == pytest.approx(8)
