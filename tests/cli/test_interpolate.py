"""Interpolation between two images, in both spaces."""

import numpy as np
import pytest

import vqvae_jax
from vqvae_jax.cli.interpolate import between_codes


def test_codes_change_one_after_the_other():
    first, last = np.zeros((3, 4, 2), int), np.ones((3, 4, 2), int)
    parts = np.linspace(0, 1, 7)
    found = between_codes(np.stack([first, last]), parts, seed=0)
    np.testing.assert_array_equal(found.sum(axis=(1, 2, 3)), [0, 4, 8, 12, 16, 20, 24])
    assert (np.diff(found, axis=0) >= 0).all()
    other = between_codes(np.stack([first, last]), parts, seed=1)
    assert (other != found).any()


@pytest.mark.parametrize("space", ["z_e", "codes"])
def test_the_first_and_last_images_are_reconstructions(
    command,
    digits_file,
    finished_run,
    tiny_images,
    photos,
    read_images,
    space,
    tmp_path,
):
    ends = photos / "3" / "0.png", photos / "7" / "4.png"
    options = "--steps=4", f"--space={space}"
    words = ("interpolate", digits_file, *ends, tmp_path, *options)
    found = command(*words)
    assert found == (0, f"{tmp_path}: 5 files\n", "")
    made = read_images(tmp_path)
    assert list(made) == ["000.png", "001.png", "002.png", "003.png", "strip.png"]
    model, params = vqvae_jax.restore(finished_run)
    pair = np.stack([tiny_images[0], tiny_images[4]])
    expected = model.decode(params, model.encode(params, pair))[..., 0]
    np.testing.assert_array_equal(made["000.png"], expected[0])
    np.testing.assert_array_equal(made["003.png"], expected[1])
    again = command(*words)
    assert again.out == f"{tmp_path}: 5 files (5 existed)\n"


def test_many_images_are_decoded_in_batches(
    command, digits_file, finished_run, tiny_images, photos, read_images, tmp_path
):
    """In order, and the last batch too."""
    ends = photos / "3" / "0.png", photos / "7" / "4.png"
    options = "--steps=67", "--space=codes"
    assert command("interpolate", digits_file, *ends, tmp_path, *options).code == 0
    model, params = vqvae_jax.restore(finished_run)
    pair = np.asarray(model.encode(params, tiny_images[np.array([0, 4])]))
    codes = between_codes(pair, np.linspace(0, 1, 67), seed=0)
    expected = np.asarray(model.decode(params, codes))[..., 0]
    made = read_images(tmp_path)
    found = np.stack([made[f"{number:03}.png"] for number in range(67)])
    np.testing.assert_array_equal(found, expected)


def test_the_inputs_are_never_replaced(error_of, digits_file, copied_photos):
    end, other = copied_photos / "3" / "000.png", copied_photos / "7" / "4.png"
    (copied_photos / "3" / "0.png").rename(end)
    before = end.read_bytes()
    words = ("interpolate", digits_file, end, other, end.parent, "--force")
    assert "is an input and would be replaced" in error_of(*words)
    assert end.read_bytes() == before


def test_invalid_arguments_raise(error_of, digits_file, photos, tmp_path):
    one = photos / "3" / "0.png"
    words = ("interpolate", digits_file, one, photos / "7", tmp_path)
    assert "needs two images, got 4" in error_of(*words)
    assert not list(tmp_path.iterdir())
