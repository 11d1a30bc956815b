"""The exception for mistakes that the user can fix."""

import pytest

from vqvae_jax.runtime.errors import UserError, require


def test_require():
    require(True, "not raised")
    with pytest.raises(UserError, match=r"^the message$"):
        require(False, "the message")
    assert issubclass(UserError, ValueError)
