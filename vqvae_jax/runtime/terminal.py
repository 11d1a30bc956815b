"""What a program prints: any text, and each error once."""

import io
import logging
import sys
from collections.abc import Callable
from typing import Any


def accept_any_text() -> None:
    """Escape the characters that stdout and stderr cannot encode.

    Paths may contain bytes that are not UTF-8, and a terminal may be limited to ASCII.
    """
    for stream in (sys.stdout, sys.stderr):
        # Streams of a notebook cannot be configured; without a console there are none.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def silence_libraries() -> None:
    """Suppress what libraries log: errors are also raised, and reported in one line."""
    # Imported here, as this module is imported before a command line is checked.
    from absl import logging as absl_logging

    absl_logging.set_verbosity(absl_logging.FATAL)
    # Orbax reads many arrays at once, and raises only the first error.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    if not isinstance(sys.unraisablehook, _WithoutLateCallbacks):
        sys.unraisablehook = _WithoutLateCallbacks(sys.unraisablehook)


class _WithoutLateCallbacks:
    """Suppresses errors of background reads and writes that end after the first error.

    After the first array of a checkpoint that cannot be written is reported, the
    threads that write the others find a closed event loop, and print that.
    """

    def __init__(self, hook: Callable[[Any], Any]):
        self._hook = hook

    def __call__(self, unraisable: Any) -> None:
        """Report an error with the hook, unless it is such an error."""
        error = unraisable.exc_value
        if not (isinstance(error, RuntimeError) and "loop is closed" in str(error)):
            self._hook(unraisable)
