"""Names of the Hub; test_loading.py tests downloads."""

import pytest

from vqvae_jax.pretrained import hub
from vqvae_jax.runtime.errors import UserError


@pytest.mark.parametrize(
    "name",
    [
        *("hf://", "hf://a", "hf://a/", "hf://a/b@", "hf://a/b/c", "hf://a/../b"),
        "hf:a/b",
    ],
)
def test_invalid_names_raise(name):
    with pytest.raises(
        UserError, match="is not a name on the Hub: expected hf://user/name"
    ):
        hub.download(name, "model.safetensors")
