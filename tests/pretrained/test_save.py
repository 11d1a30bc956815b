"""What save_pretrained leaves where it cannot write, or writes twice."""

import numpy as np
import pytest
import safetensors

import vqvae_jax
from vqvae_jax.pretrained.loading import find
from vqvae_jax.runtime.errors import UserError


def read(path):
    """The metadata and arrays of a file, whose order safetensors draws by chance."""
    with safetensors.safe_open(path, framework="numpy") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return file.metadata(), arrays


def test_a_folder_that_cannot_be(finished_run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*file/x/model.safetensors"):
        vqvae_jax.save_pretrained(finished_run, tmp_path / "file" / "x")


def test_a_file_is_replaced_and_can_be_given_away_again(finished_run, tmp_path):
    """Also by one who has the file alone."""
    first = vqvae_jax.save_pretrained(finished_run, tmp_path / "a")
    content = read(first)
    second = vqvae_jax.save_pretrained(first, tmp_path / "a")
    assert second == first
    about, arrays = read(second)
    assert about == content[0]
    assert arrays.keys() == content[1].keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, content[1][name])


@pytest.mark.slow
def test_a_rate_is_told_by_who_knows_it(speech_run, tmp_path):
    pair = vqvae_jax.restore(speech_run)
    path = vqvae_jax.save_pretrained(pair, tmp_path, sample_rate=8_000)
    assert find(path).about.sample_rate == 8_000
