import pytest

from vqvae_jax.data import DataConfig
from vqvae_jax.runtime.errors import UserError

GOOD = {"source": "tfds", "name": "cifar10", "image_size": 32, "channels": 3}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("source", "csv"),
        ("name", ""),
        ("image_size", 0),
        ("channels", 2),
        ("validation_fraction", 0.0),
        ("validation_fraction", 0.5),
        ("num_workers", -1),
    ],
)
def test_impossible_values_are_refused_by_key(key, value):
    DataConfig(**GOOD)
    with pytest.raises(UserError, match=f"^{key} is") as caught:
        DataConfig(**{**GOOD, key: value})
    assert "\n" not in str(caught.value)


def test_a_folder_needs_a_root_and_no_name():
    DataConfig(source="folder", data_dir="images", image_size=32, channels=3)
    with pytest.raises(UserError, match=r"^data_dir is empty"):
        DataConfig(source="folder", image_size=32, channels=3)
