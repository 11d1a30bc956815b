"""Export to folders that cannot be written, and export of an export."""

import numpy as np
import pytest
import safetensors

import vqvae_jax
from vqvae_jax.runtime.errors import UserError


def read(path):
    """Return the metadata and arrays of a file, whose order is arbitrary."""
    with safetensors.safe_open(path, framework="numpy") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return file.metadata(), arrays


def test_a_folder_that_cannot_be_written_raises(finished_run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*file/x/model.safetensors"):
        vqvae_jax.save_pretrained(finished_run, tmp_path / "file" / "x")


def test_a_file_can_be_exported_again_and_replaced(finished_run, tmp_path):
    first = vqvae_jax.save_pretrained(finished_run, tmp_path / "a")
    metadata, arrays = read(first)
    second = vqvae_jax.save_pretrained(first, tmp_path / "a")
    assert second == first
    metadata_again, arrays_again = read(second)
    assert metadata_again == metadata
    assert arrays_again.keys() == arrays.keys()
    for name, array in arrays_again.items():
        np.testing.assert_array_equal(array, arrays[name])
