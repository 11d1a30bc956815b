"""Forms of the arrays in a run's files: those that the stages write have them."""

import pytest

from vqvae_jax.runtime import npz_schemas, safe_io
from vqvae_jax.runtime.errors import UserError


def test_samples_have_theirs(finished_run):
    arrays = safe_io.read_arrays(finished_run / "samples.npz", npz_schemas.IMAGES)
    assert arrays["images"].shape == (40, 8, 8, 1)
    assert len(arrays["class_names"]) == 10
    with pytest.raises(UserError, match="codes is int32"):
        safe_io.read_arrays(finished_run / "samples.npz", npz_schemas.CLIPS)


@pytest.mark.slow
def test_conversions_have_theirs(speech_run):
    arrays = safe_io.read_arrays(speech_run / "samples.npz", npz_schemas.CONVERSIONS)
    assert arrays["audio"].shape[:2] == (len(arrays["index"]), 2)
