"""The exception for mistakes that a user can mend."""

import pytest

from vqvae_jax.runtime.errors import UserError, require


def test_require():
    require(True, "never told")
    with pytest.raises(UserError, match=r"^the message$"):
        require(False, "the message")
    assert issubclass(UserError, ValueError)
