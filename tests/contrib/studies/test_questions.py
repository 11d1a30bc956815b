"""The slides' table for synthetic runs: a cell is measured or "not defined"."""

import math
import statistics

import pytest

from vqvae_jax import registry
from vqvae_jax.contrib.studies.questions import NOT_DEFINED, Trained, compare

TRAITS = {
    kind: registry.load(registry.MODELS[kind].model).traits
    for kind in ("gan", "vae", "pixelcnn", "vqvae")
}
DIMS = 64
SHARP = {"gradient_magnitude": 0.5, "high_frequency_power": 0.25}


def trained(latents=0, sharpness=SHARP, **results):
    results |= {"samples_per_second": 100.0}
    return Trained(results, sharpness, latents, DIMS)


@pytest.fixture(scope="module")
def table():
    diverged = Trained({}, {}, 16, DIMS)
    return compare(
        {
            "gan": [
                trained(16, test_discriminator=1.0),
                diverged,
                trained(16, test_discriminator=1.5),
            ],
            "vae": [
                trained(32, test_bits_per_dim=b, test_kl=0.5, test_psnr_db=20.0)
                for b in (3.0, 3.1, 3.2)
            ],
            "pixelcnn": [trained(test_bits_per_dim=b) for b in (2.0, 2.0, 2.0)],
            "vqvae": [
                trained(
                    16,
                    test_bits_per_dim_learned_prior=b,
                    test_psnr_db=21.0,
                    test_ssim=0.9,
                    code_bits=96.0,
                )
                for b in (3.5, 3.5, 3.8)
            ],
        },
        TRAITS,
    )


def texts(table, question):
    return {kind: cell.text for kind, cell in table[question].items()}


def test_likelihoods(table):
    assert texts(table, "exact likelihood p(x)") == {
        "gan": NOT_DEFINED,
        "vae": "no, a bound: 3.1 bits/dim",
        "pixelcnn": "yes, exactly 2 bits/dim",
        "vqvae": "no, a bound: 3.6 bits/dim",
    }


def test_latents(table):
    assert texts(table, "latent variable z") == {
        "gan": "yes, 16 numbers",
        "vae": "yes, 32 numbers",
        "pixelcnn": "no",
        "vqvae": "yes, 16 codes",
    }
    assert texts(table, "z inferred from x") == {
        "gan": "no",
        "vae": "yes, reconstructs at 20 dB PSNR",
        "pixelcnn": NOT_DEFINED,
        "vqvae": "yes, reconstructs at 21 dB PSNR, 0.9 SSIM",
    }
    discrete = table["z discrete"]
    # 0.5 nats per value, for 64 values.
    bits = 0.5 * DIMS / math.log(2)
    assert discrete["vae"].values["kl_bits"] == pytest.approx([bits] * 3)
    assert discrete["vqvae"].text == "yes, 96 bits"
    assert discrete["pixelcnn"].text == NOT_DEFINED


def test_stability_is_the_spread_over_seeds(table):
    stable = table["stable training"]
    assert stable["gan"].values["diverged"] == [1]
    assert stable["gan"].text.startswith("1 of 3 seeds diverged; final discriminator")
    spread = statistics.stdev([1.0, 1.5])
    assert stable["gan"].values["standard_deviation"] == pytest.approx([spread])
    assert stable["vae"].values["standard_deviation"] == pytest.approx([0.1])
    assert stable["pixelcnn"].text.startswith("0 of 3 seeds diverged")
    assert stable["pixelcnn"].values["standard_deviation"] == [0.0]


def test_diverged_systems_are_not_defined():
    diverged = [Trained({}, {}, 8, DIMS)] * 2
    table = compare(dict.fromkeys(TRAITS, diverged), TRAITS)
    for question in ("exact likelihood p(x)", "sharp images", "samples per second"):
        assert set(texts(table, question).values()) == {NOT_DEFINED}
    for kind, cell in table["stable training"].items():
        collapsed = " or collapsed" if kind == "vqvae" else ""
        assert cell.text == "2 of 2 seeds diverged" + collapsed
        assert cell.values == {"diverged": [2]}


def test_systems_of_the_same_kind_have_separate_columns():
    table = compare(
        {
            "small": [trained(8, test_bits_per_dim_learned_prior=2.0)],
            "large": [trained(16, test_bits_per_dim_learned_prior=1.0)],
        },
        traits=dict.fromkeys(("small", "large"), TRAITS["vqvae"]),
    )
    assert texts(table, "exact likelihood p(x)") == {
        "small": "no, a bound: 2 bits/dim",
        "large": "no, a bound: 1 bits/dim",
    }
    assert texts(table, "latent variable z")["large"] == "yes, 16 codes"


def test_sharpness_and_speed_are_means_over_seeds(table):
    cell = table["sharp images"]["gan"]
    assert cell.values["gradient_magnitude"] == [0.5, 0.5]
    assert "0.5 gradient magnitude" in cell.text
    assert "0.25 high frequency power" in cell.text
    assert table["samples per second"]["vae"].text == "100"
