"""Forms of the arrays in a run's files: those that the stages write have them."""

import pytest

from vqvae_jax import files, forms
from vqvae_jax.errors import UserError


def test_samples_have_theirs(finished_run):
    arrays = files.read_arrays(finished_run / "samples.npz", forms.IMAGES)
    assert arrays["images"].shape == (40, 8, 8, 1)
    assert len(arrays["class_names"]) == 10
    with pytest.raises(UserError, match="codes is int32"):
        files.read_arrays(finished_run / "samples.npz", forms.CLIPS)


@pytest.mark.slow
def test_conversions_have_theirs(speech_run):
    arrays = files.read_arrays(speech_run / "samples.npz", forms.CONVERSIONS)
    assert arrays["audio"].shape[:2] == (len(arrays["index"]), 2)
