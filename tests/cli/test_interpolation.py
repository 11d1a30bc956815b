"""The way from one image to another, in both spaces."""

import numpy as np
import pytest

import vqvae_jax
from vqvae_jax.cli.interpolation import between_codes


def test_codes_change_one_by_one_and_stay_changed():
    first, last = np.zeros((3, 4, 2), int), np.ones((3, 4, 2), int)
    parts = np.linspace(0, 1, 7)
    found = between_codes(np.stack([first, last]), parts, seed=0)
    np.testing.assert_array_equal(found.sum(axis=(1, 2, 3)), [0, 4, 8, 12, 16, 20, 24])
    assert (np.diff(found, axis=0) >= 0).all()
    other = between_codes(np.stack([first, last]), parts, seed=1)
    assert (other != found).any()


@pytest.mark.parametrize("space", ["z_e", "codes"])
def test_the_ends_are_the_reconstructions(
    command, digits, finished_run, images, photos, read_images, space, tmp_path
):
    ends = photos / "3" / "0.png", photos / "7" / "4.png"
    words = ("interpolate", digits, *ends, tmp_path, "--steps=4", f"--space={space}")
    found = command(*words)
    assert found == (0, f"{tmp_path}: 5 files\n", "")
    made = read_images(tmp_path)
    assert list(made) == ["000.png", "001.png", "002.png", "003.png", "strip.png"]
    model, params = vqvae_jax.restore(finished_run)
    pair = np.stack([images[0], images[4]])
    expected = model.decode(params, model.encode(params, pair))[..., 0]
    np.testing.assert_array_equal(made["000.png"], expected[0])
    np.testing.assert_array_equal(made["003.png"], expected[1])
    again = command(*words)
    assert again.out == f"{tmp_path}: 5 files (5 were there already)\n"


def test_the_ends_are_not_replaced_by_the_way(refused, digits, own_photos):
    end, other = own_photos / "3" / "000.png", own_photos / "7" / "4.png"
    (own_photos / "3" / "0.png").rename(end)
    before = end.read_bytes()
    words = ("interpolate", digits, end, other, end.parent, "--force")
    assert "would be replaced by what is made of it" in refused(*words)
    assert end.read_bytes() == before


def test_what_is_no_way(refused, digits, photos, tmp_path):
    one = photos / "3" / "0.png"
    words = ("interpolate", digits, one, photos / "7", tmp_path)
    assert "needs two images, got 4" in refused(*words)
    assert "--steps must be at least 2, got 1" in refused(
        "interpolate", digits, one, one, tmp_path, "--steps=1"
    )
    assert not list(tmp_path.iterdir())
