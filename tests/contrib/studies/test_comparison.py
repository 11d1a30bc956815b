"""A comparison of tiny systems on digits, its answers, and sharpness in closed form.

An answer is measured or "not defined". One of the tiny systems diverges.
"""

import copy
import json
import math
import statistics

import numpy as np
import pytest
from scipy import ndimage
from sklearn.datasets import load_sample_image

from vqvae_jax import pipeline, registry
from vqvae_jax.contrib.studies import comparison
from vqvae_jax.contrib.studies.comparison import (
    NOT_DEFINED,
    Trained,
    compare,
    gradient_magnitude,
    high_frequency_power,
    sharpness_ratios,
)
from vqvae_jax.options import flatten
from vqvae_jax.runtime.errors import DivergedError, UserError

NETWORK = {"channels": 8, "residual_channels": 8}
SIZES = {
    "gan": {
        "latent_dim": 4,
        "generator": {"channels": 8},
        "discriminator": {"channels": 8},
    },
    "vae": {"encoder": NETWORK, "decoder": NETWORK, "likelihood": "gaussian"},
    "pixelcnn": {"network": {"layers": 1, "channels": 8}},
    "vqvae": {
        "encoder": NETWORK,
        "decoder": NETWORK,
        "quantizer": {"num_codes": 16, "dim": 4},
        "likelihood": "gaussian",
    },
}
STEPS = {"steps": 4, "log_every": 2, "checkpoint_every": 4}


@pytest.fixture(scope="module")
def config(make_config, digits_dir):
    changes = {
        f"systems.{kind}.model.{key}": value
        for kind, sizes in SIZES.items()
        for key, value in flatten(sizes).items()
    }
    changes |= flatten({"systems.vqvae.prior.network": {"layers": 1, "channels": 8}})
    changes |= flatten({"systems.vqvae.prior_training": STEPS})
    for kind in SIZES:
        changes[f"systems.{kind}.data.data_dir"] = digits_dir
        changes |= flatten({f"systems.{kind}.training": STEPS})
        drawn = {"num_samples": 6, "batch_size": 3}
        changes |= flatten({f"systems.{kind}.samples": drawn})
    return make_config("comparison", {"seeds": 2} | changes)


@pytest.mark.slow
def test_all_systems_and_seeds_are_in_one_table(config, tmp_path, monkeypatch, capsys):
    """The second seed of one system diverges, which its cell reports."""
    run_one = pipeline.run
    trained = []

    def run(system, workdir, only, *, brief):
        assert brief
        trained.append((system["model"]["kind"], system["seed"]))
        if trained[-1] == ("vae", 1):
            raise DivergedError("vae: loss is nan")
        run_one(system, workdir, only)

    monkeypatch.setattr(pipeline, "run", run)
    assert registry.load(registry.STUDIES["systems"]) is comparison.run
    comparison.run(config, str(tmp_path), command="python launch.py --x")
    kinds = ("gan", "vae", "pixelcnn", "vqvae")
    assert trained == [(kind, seed) for seed in (0, 1) for kind in kinds]
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["seeds"] == 2
    assert results["budget"]["vqvae"] == "4 steps of 32 + 4 steps of 32"
    table = results["table"]
    assert all(set(cells) == set(kinds) for cells in table.values())
    assert table["stable training"]["vae"]["diverged"] == [1]
    assert table["stable training"]["gan"]["diverged"] == [0]
    for kind in ("pixelcnn", "vqvae"):
        measured = [
            json.loads((tmp_path / kind / str(seed) / "results.json").read_text())
            for seed in (0, 1)
        ]
        name = "test_bits_per_dim" + ("_learned_prior" if kind == "vqvae" else "")
        cell = table["exact likelihood p(x)"][kind]
        assert cell[name] == [result[name] for result in measured]
    page = (tmp_path / "report.html").read_text()
    # Real images, and samples of each system.
    assert page.count("data:image/png;base64,") == 5
    assert "1 of 2 seeds diverged" in page
    assert "<code>python launch.py --x</code>" in page
    assert "vae, seed 1: vae: loss is nan" in capsys.readouterr().out


def test_invalid_options_raise_before_training(config, tmp_path):
    wrong = copy.deepcopy(config)
    wrong["systems"]["vqvae"]["model"]["quantizer"]["num_codes"] = 0
    with pytest.raises(UserError, match=r"^model\.quantizer\.num_codes must be >= 1"):
        comparison.run(wrong, str(tmp_path / "run"))
    with pytest.raises(UserError, match=r"^seeds must be at least 1, got 0"):
        comparison.run(config | {"seeds": 0}, str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_workdir_of_version_0_1_raises(config, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"is a run of vqvae_jax 0\.1") as caught:
        comparison.run(config, str(tmp_path))
    assert "\n" not in str(caught.value)


# The answers.

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


# Sharpness.

H, W = 12, 20
ROWS, COLUMNS = np.mgrid[:H, :W]


def as_images(*planes):
    """Stack planes [H, W] of grey levels as the channels of one image."""
    return np.round(np.stack(planes, axis=-1)).astype(np.uint8)[None]


def wave(*, rows=0.0, columns=0.0, amplitude=100):
    """Return a cosine with these frequencies, in cycles per pixel."""
    phases = [
        np.cos(2 * np.pi * f * (n + 0.5)) for f, n in ((rows, ROWS), (columns, COLUMNS))
    ]
    return 128 + amplitude * phases[0] * phases[1]


def photo(*, sigma=0.0):
    """Return 24x32 patches of a photograph, blurred before cutting."""
    image = load_sample_image("china.jpg")[:408, :640].astype(float)
    image = ndimage.gaussian_filter(image, (sigma, sigma, 0)) if sigma else image
    patches = image.reshape(17, 24, 20, 32, 3).swapaxes(1, 2).reshape(-1, 24, 32, 3)
    return np.round(patches).astype(np.uint8)


class TestGradientMagnitude:
    def test_constant_image_is_zero(self):
        assert gradient_magnitude(as_images(np.full((H, W), 77))).tolist() == [0.0]

    def test_ramp_has_its_slope(self):
        """Also downwards, where unsigned differences would wrap around."""
        up, down = 3 * ROWS + 4 * COLUMNS, 200 - 3 * ROWS - 4 * COLUMNS
        both = np.concatenate([as_images(up), as_images(down)])
        np.testing.assert_allclose(gradient_magnitude(both), 5.0)

    def test_checkerboard(self):
        board = as_images(40 + 200 * ((ROWS + COLUMNS) % 2))
        assert gradient_magnitude(board) == pytest.approx([200 * math.sqrt(2)])

    def test_channels_are_averaged(self):
        images = as_images(5 * ROWS, np.full((H, W), 9), 7 * COLUMNS)
        assert gradient_magnitude(images) == pytest.approx([4.0])

    def test_images_without_neighbours_raise(self):
        with pytest.raises(UserError, match=r"at least 2x2, got \(3, 1, 5, 1\)"):
            gradient_magnitude(np.zeros((3, 1, 5, 1), np.uint8))


class TestHighFrequencyPower:
    def test_constant_image_is_zero(self):
        power = high_frequency_power(as_images(np.full((H, W), 77)))
        np.testing.assert_allclose(power, 0, atol=1e-20)

    @pytest.mark.parametrize(
        ("frequencies", "expected"),
        [
            ({"columns": 9 / 40}, 0),
            ({"columns": 10 / 40}, 0),
            ({"columns": 11 / 40}, 100**2 / 2),
            ({"rows": 5 / 24}, 0),
            ({"rows": 7 / 24}, 100**2 / 2),
            # Below the cutoff each; together sqrt(0.208² + 0.125²) = 0.243, or 0.272.
            ({"rows": 5 / 24, "columns": 5 / 40}, 0),
            ({"rows": 5 / 24, "columns": 7 / 40}, 100**2 / 4),
        ],
    )
    def test_pure_wave(self, frequencies, expected):
        """Above the cutoff, a direction contributes half the squared amplitude."""
        power = high_frequency_power(as_images(wave(**frequencies)))
        # Rounding to grey levels adds noise of variance 1/12.
        assert power == pytest.approx([expected], abs=100 * 0.3)
        assert power > 1000 if expected else power < 0.2

    def test_white_noise_is_its_variance_above_the_cutoff(self):
        """By Parseval, all H W coefficients of white noise have the same power."""
        noise = np.random.default_rng(0).integers(256, size=(400, H, W, 2))
        high = sum(
            math.hypot(k / (2 * H), m / (2 * W)) > 0.25
            for k in range(H)
            for m in range(W)
        )
        expected = (256**2 - 1) / 12 * high / (H * W)
        power = high_frequency_power(noise.astype(np.uint8)).mean()
        assert power == pytest.approx(expected, rel=0.01)

    def test_checkerboard_is_mostly_high(self):
        board = as_images(40 + 200 * ((ROWS + COLUMNS) % 2))
        assert 0.99 < high_frequency_power(board)[0] / 100**2 <= 1

    def test_ramp_is_mostly_low(self):
        """The jump between its ends does not count as an edge."""
        ramp = as_images(12 * COLUMNS)
        assert high_frequency_power(ramp)[0] < 0.001 * ramp.var()

    def test_channels_are_averaged(self):
        images = as_images(wave(columns=0.4), np.full((H, W), 9))
        assert high_frequency_power(images) == pytest.approx([2500], rel=0.01)


class TestRatios:
    def test_real_images_have_ratio_one_to_themselves(self):
        assert sharpness_ratios(photo(), photo()) == {
            "gradient_magnitude_ratio": 1.0,
            "high_frequency_power_ratio": 1.0,
        }

    def test_blur_lowers_ratios(self):
        by_blur = [sharpness_ratios(photo(sigma=s), photo()) for s in (0.5, 1.0, 2.0)]
        for name in by_blur[0]:
            values = [1.0, *(ratios[name] for ratios in by_blur)]
            assert np.all(np.diff(values) < -0.01)
            assert values[-1] < 0.5

    def test_sets_can_differ_in_size(self):
        weak, strong = wave(columns=0.4, amplitude=30), wave(columns=0.4, amplitude=60)
        real = np.repeat(as_images(strong), 300, axis=0)
        samples = np.concatenate([as_images(weak), as_images(strong)])
        ratios = sharpness_ratios(samples, real)
        assert ratios["gradient_magnitude_ratio"] == pytest.approx(0.75, rel=0.02)
        assert ratios["high_frequency_power_ratio"] == pytest.approx(0.625, rel=0.02)

    def test_other_sizes_and_flat_references_raise(self):
        flat = np.zeros((2, 8, 8, 1), np.uint8)
        with pytest.raises(UserError, match="must have the same size"):
            sharpness_ratios(flat, photo())
        with pytest.raises(UserError, match="all flat"):
            sharpness_ratios(flat, flat)
