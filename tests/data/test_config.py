"""Validation of `DataConfig`: messages start with the key."""

import pytest

from vqvae_jax import options
from vqvae_jax.data.config import DataConfig
from vqvae_jax.runtime.errors import UserError

GOOD = {"source": "tfds", "name": "cifar10", "image_size": 32, "channels": 3}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("source", "csv"),
        ("name", ""),
        ("image_size", 0),
        ("validation_fraction", 0.0),
        ("validation_fraction", 0.5),
        ("num_workers", -1),
    ],
)
def test_invalid_values_raise_with_their_key(key, value):
    DataConfig(**GOOD)
    with pytest.raises(UserError, match=f"^{key} (must be|is empty)") as caught:
        DataConfig(**{**GOOD, key: value})
    assert "\n" not in str(caught.value)


def test_an_unknown_number_of_channels_raises():
    with pytest.raises(UserError, match=r"^data\.channels must be one of 1, 3, got 2$"):
        options.build(DataConfig, {**GOOD, "channels": 2}, name="data")


def test_a_folder_requires_data_dir_and_no_name():
    DataConfig(source="folder", data_dir="images", image_size=32, channels=3)
    with pytest.raises(UserError, match=r"^data_dir is empty"):
        DataConfig(source="folder", image_size=32, channels=3)
