"""What a program prints: any text, lines and tables, and each error once."""

import io
import logging
import re
import sys
import types

import pytest
import rich.console
from absl import logging as absl_logging

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


def test_characters_that_a_stream_cannot_encode_are_escaped(monkeypatch):
    """Those of a terminal of ASCII, and bytes of a path that are not UTF-8."""
    for encoding, expected in (
        ("ascii", b"\\xe9\\udce9\n"),
        ("utf-8", b"\xc3\xa9\\udce9\n"),
    ):
        for name in ("stdout", "stderr"):
            stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
            monkeypatch.setattr(sys, name, stream)
        terminal.accept_any_text()
        for stream in (sys.stdout, sys.stderr):
            print("é\udce9", file=stream, flush=True)
            assert stream.buffer.getvalue() == expected


def test_streams_that_cannot_be_configured_are_left(monkeypatch):
    """Those of a notebook, and none."""
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setattr(sys, "stderr", None)
    terminal.accept_any_text()


def test_libraries_are_silent(monkeypatch, caplog):
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    verbosity, level = absl_logging.get_verbosity(), logging.getLogger("asyncio").level
    try:
        terminal.silence_libraries()
        hook = sys.unraisablehook
        terminal.silence_libraries()
        assert sys.unraisablehook is hook
        absl_logging.error("raised too")
        logging.getLogger("asyncio").error("never retrieved")
        assert not caplog.records
    finally:
        absl_logging.set_verbosity(verbosity)
        logging.getLogger("asyncio").setLevel(level)


def test_only_errors_of_abandoned_work_are_suppressed():
    reported = []
    hook = terminal._WithoutLateCallbacks(
        lambda given: reported.append(given.exc_value)
    )
    errors = RuntimeError("Event loop is closed"), RuntimeError("another"), OSError("x")
    for error in errors:
        hook(types.SimpleNamespace(exc_value=error))
    assert reported == list(errors[1:])
