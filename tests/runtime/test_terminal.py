"""Lines and tables on a terminal and in a pipe."""

import re

import pytest
import rich.console

from vqvae_jax.runtime import terminal

LONG = "word " * 40 + "end"
NARROW = 30


@pytest.fixture(params=[False, True], ids=["pipe", "terminal"])
def is_terminal(request, monkeypatch):
    console = rich.console.Console(width=NARROW, force_terminal=request.param)
    monkeypatch.setattr(rich, "get_console", lambda: console)
    return request.param


def lines(capsys):
    """Return the printed lines without colours."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    return [line.rstrip() for line in text.splitlines()]


def test_a_line_is_wrapped_on_a_terminal_only(capsys, is_terminal):
    terminal.print_line(f"{LONG} [bold]")
    found = lines(capsys)
    if is_terminal:
        assert len(found) > 1
        assert max(map(len, found)) <= NARROW
    assert " ".join(found) == f"{LONG} [bold]"


def test_a_table_is_wrapped_on_a_terminal_only(capsys, is_terminal):
    terminal.print_table({"a": LONG, "longer": "one\ntwo"})
    found = lines(capsys)
    if is_terminal:
        assert max(map(len, found)) <= NARROW
    else:
        assert found == [f"a       {LONG}", "longer  one", "        two"]
    assert found[-2:] == ["longer  one", "        two"]


def test_columns_have_a_header(capsys, is_terminal):
    terminal.print_columns([("x", "y", "z"), ("1", "2222\n3", "4")])
    assert lines(capsys) == ["x  y     z", "1  2222  4", "   3"]


def test_escape_sequences_are_not_printed(capsys, is_terminal):
    terminal.print_line("a\x1b[2Jb")
    terminal.print_table({"\x1b[2J": "\x1b[2J"})
    assert "\x1b[2J" not in capsys.readouterr().out
