"""Decoding and fitting of images: sizes, modes, transparency and depths."""

import io

import numpy as np
import pytest
from PIL import Image

from vqvae_jax.data import images
from vqvae_jax.runtime.errors import UserError


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def test_an_image_of_the_right_shape_keeps_its_pixels():
    array = noise(16, 16, 3)
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "PNG")
    got = images.decode(stream.getvalue(), image_size=16, channels=3)
    np.testing.assert_array_equal(got, array)
    np.testing.assert_array_equal(
        images.fit_array(array, image_size=16, channels=3), array
    )


def test_the_shorter_side_fits_and_the_crop_is_centred():
    wide = Image.fromarray(noise(10, 30))
    whole = np.asarray(wide.resize((15, 5), Image.Resampling.BICUBIC))
    got = images.fit(wide, image_size=5, channels=1)
    np.testing.assert_array_equal(got[..., 0], whole[:, 5:10])
    tall = wide.transpose(Image.Transpose.TRANSPOSE)
    turned = images.fit(tall, image_size=5, channels=1)
    np.testing.assert_array_equal(turned[..., 0], whole[:, 5:10].T)


def test_shrinking_is_antialiased():
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 255
    got = images.fit(Image.fromarray(stripes), image_size=8, channels=1)
    assert np.abs(got.astype(int) - 128)[:, 1:-1].max() <= 2


def test_small_images_are_enlarged():
    got = images.fit_array(noise(8, 8, 1), image_size=32, channels=3)
    assert got.shape == (32, 32, 3)


def test_grey_and_rgb_convert_to_each_other():
    grey = noise(8, 8, 1)
    rgb = images.fit_array(grey, image_size=8, channels=3)
    np.testing.assert_array_equal(rgb, np.repeat(grey, 3, axis=-1))
    np.testing.assert_array_equal(images.fit_array(rgb, image_size=8, channels=1), grey)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "CMYK", "YCbCr", "HSV"])
def test_common_modes_convert_to_rgb(mode):
    # A uniform image, because YCbCr and palettes only approximate colours.
    image = Image.new("RGB", (4, 4), (255, 255, 255)).convert(mode)
    got = images.fit(image, image_size=4, channels=3)
    assert got.min() >= 250


def test_transparent_pixels_become_white():
    image = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    assert (images.fit(image, image_size=4, channels=3) == 255).all()


def test_sixteen_bit_grey_keeps_its_upper_bits():
    array = np.arange(256, dtype=np.uint16).reshape(16, 16) * 256 + 37
    got = images.fit(Image.fromarray(array), image_size=16, channels=1)
    np.testing.assert_array_equal(got.ravel(), np.arange(256))


def test_sixteen_bit_grey_with_a_transparent_value_keeps_its_upper_bits(tmp_path):
    """Pillow's own conversion clips, so that all values above 255 become white."""
    array = np.arange(256, dtype=np.uint16).reshape(16, 16) * 256 + 37
    path = tmp_path / "transparent.png"
    Image.fromarray(array).save(path, transparency=7 * 256 + 37)
    with Image.open(path) as image:
        assert (image.mode, image.has_transparency_data) == ("I;16", True)
        got = images.fit(image, image_size=16, channels=1)
    expected = np.arange(256)
    expected[7] = 255
    np.testing.assert_array_equal(got.ravel(), expected)


@pytest.mark.parametrize("mode", ["I", "F"])
def test_other_depths_raise(mode):
    with pytest.raises(UserError, match=f"mode '{mode}'"):
        images.fit(Image.new(mode, (4, 4)), image_size=4, channels=1)
