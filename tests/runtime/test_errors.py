"""The exception for mistakes that the user can fix."""

import pytest

from vqvae_jax.runtime.errors import UserError, one_line, printable, report, require


def test_require():
    require(True, "not raised")
    with pytest.raises(UserError, match=r"^the message$"):
        require(False, "the message")
    assert issubclass(UserError, ValueError)


def test_escape_sequences_are_not_printed(capsys):
    text = "a\x1b[2J\x07 é\udce9\u202e"
    escaped = r"a\x1b[2J\x07 é\udce9\u202e"
    assert printable(text) == escaped
    assert one_line(f"{text}\n b") == f"{escaped} b"
    report(UserError(text))
    assert capsys.readouterr().err == f"error: {escaped}\n"
