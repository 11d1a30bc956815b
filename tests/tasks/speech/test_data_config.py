"""Validation of `SpeechDataConfig`: messages start with the key."""

import pytest

from vqvae_jax.runtime.errors import UserError
from vqvae_jax.tasks.speech.data_config import SpeechDataConfig

GOOD = {"source": "tfds", "name": "speech", "crop_samples": 4_000}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("source", "csv", "must be one of tfds, folder, got 'csv'"),
        ("name", "", "is empty"),
        ("crop_samples", 0, "must be >= 1 and <= 16777216, got 0"),
        ("sample_rate", 3_999, "must be >= 4000 and <= 48000, got 3999"),
        ("sample_rate", 48_001, "must be >= 4000 and <= 48000, got 48001"),
        ("validation_fraction", 0.0, "must be > 0 and < 0.5, got 0.0"),
        ("validation_fraction", 0.5, "must be > 0 and < 0.5, got 0.5"),
        ("num_workers", -1, "must be >= 0 and <= 1024, got -1"),
    ],
)
def test_invalid_values_raise_with_their_key(key, value, message):
    assert SpeechDataConfig(**GOOD).sample_rate == 16_000
    with pytest.raises(UserError, match=f"^{key} {message}") as caught:
        SpeechDataConfig(**{**GOOD, key: value})
    assert "\n" not in str(caught.value)


def test_a_folder_requires_data_dir_and_no_name():
    SpeechDataConfig(source="folder", data_dir="speech", crop_samples=1)
    with pytest.raises(UserError, match=r"^data_dir is empty"):
        SpeechDataConfig(source="folder", crop_samples=1)
