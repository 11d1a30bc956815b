"""What a program prints: any text, and each error once."""

import io
import logging
import sys
import types

from absl import logging as absl_logging

from vqvae_jax.runtime import terminal


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
