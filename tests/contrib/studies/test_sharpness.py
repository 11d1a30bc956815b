"""Sharpness of images with gradients and spectra in closed form."""

import math

import numpy as np
import pytest
from scipy import ndimage
from sklearn.datasets import load_sample_image

from vqvae_jax.contrib.studies.sharpness import (
    gradient_magnitude,
    high_frequency_power,
    sharpness_ratios,
)
from vqvae_jax.runtime.errors import UserError

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
