import pytest

from vqvae_jax.data import SpeechDataConfig
from vqvae_jax.runtime.errors import UserError

GOOD = {"source": "tfds", "name": "speech", "crop_samples": 4_000}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("source", "csv"),
        ("name", ""),
        ("crop_samples", 0),
        ("sample_rate", 3_999),
        ("sample_rate", 48_001),
        ("validation_fraction", 0.0),
        ("validation_fraction", 0.5),
        ("num_workers", -1),
    ],
)
def test_impossible_values_are_refused_by_key(key, value):
    assert SpeechDataConfig(**GOOD).sample_rate == 16_000
    with pytest.raises(UserError, match=f"^{key} is") as caught:
        SpeechDataConfig(**{**GOOD, key: value})
    assert "\n" not in str(caught.value)


def test_a_folder_needs_a_root_and_no_name():
    SpeechDataConfig(source="folder", data_dir="speech", crop_samples=1)
    with pytest.raises(UserError, match=r"^data_dir is empty"):
        SpeechDataConfig(source="folder", crop_samples=1)
