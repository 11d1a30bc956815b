"""The exception for mistakes that the user can fix."""

import jax.numpy as jnp
import numpy as np
import pytest

from vqvae_jax.runtime.errors import (
    UserError,
    is_out_of_memory,
    one_line,
    printable,
    report,
    report_out_of_memory,
    require,
)


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


@pytest.mark.parametrize(
    ("allocate", "asked_for"),
    [
        (lambda: jnp.zeros(2**50, jnp.uint8).block_until_ready(), f"{2**50} bytes"),
        (lambda: np.zeros(2**60, np.uint8), "1.00 EiB"),
    ],
)
def test_exhausted_memory_is_one_line_with_what_was_asked_for(
    allocate, asked_for, capsys
):
    with pytest.raises(Exception, match=asked_for) as caught:
        allocate()
    assert is_out_of_memory(caught.value)
    report_out_of_memory(caught.value)
    line = capsys.readouterr().err
    assert line.startswith("error: out of memory (")
    assert asked_for in line
    assert line.count("\n") == 1


def test_other_errors_are_not_about_memory():
    assert not is_out_of_memory(ValueError("RESOURCE_EXHAUSTED"))
