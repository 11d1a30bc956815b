"""What a program prints: any text, and each error once."""

import logging
import sys


def accept_any_text() -> None:
    """Escape the characters that stdout and stderr cannot encode.

    Paths may contain bytes that are not UTF-8, and a terminal may be limited to ASCII.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")


def silence_libraries() -> None:
    """Suppress what libraries log: errors are also raised, and reported in one line."""
    # Missing without the extra `train`.
    from absl import logging as absl_logging

    absl_logging.set_verbosity(absl_logging.FATAL)
    # Orbax reads many arrays at once, and raises only the first error.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    sys.unraisablehook = _without_late_callbacks(sys.unraisablehook)


def _without_late_callbacks(hook):
    """Suppress errors of background reads and writes that end after the first error.

    After the first array of a checkpoint that cannot be written is reported, the
    threads that write the others find a closed event loop, and print that.
    """

    def without(unraisable):
        error = unraisable.exc_value
        if not (isinstance(error, RuntimeError) and "loop is closed" in str(error)):
            hook(unraisable)

    return without
