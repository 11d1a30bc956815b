"""Names of the Hub; what is fetched under them is in test_places.py."""

import pytest

from vqvae_jax.pretrained import hub
from vqvae_jax.runtime.errors import UserError


@pytest.mark.parametrize(
    "name", ["hf://", "hf://a", "hf://a/b@", "hf://a/../b", "hf:a/b"]
)
def test_what_is_no_name(name):
    with pytest.raises(
        UserError, match="is no name of the Hub: expected hf://user/name"
    ):
        hub.download(name, "model.safetensors")
