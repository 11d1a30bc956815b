"""Arrays that the stages write match the schemas."""

import pytest

from vqvae_jax.runtime import npz_schemas, safe_io
from vqvae_jax.runtime.errors import UserError


def test_samples_match_their_schema(finished_run):
    arrays = safe_io.read_arrays(finished_run / "samples.npz", npz_schemas.IMAGES)
    assert arrays["images"].shape == (40, 8, 8, 1)
    assert len(arrays["class_names"]) == 10
    with pytest.raises(UserError, match="codes is int32"):
        safe_io.read_arrays(finished_run / "samples.npz", npz_schemas.CLIPS)
