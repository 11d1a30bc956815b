"""Exceptions for mistakes that the user can fix."""

import re
import sys


class UserError(ValueError):
    """A mistake in a config, a file or a shape, described in one line.

    The message names the key, file or shape, what was expected and what to do.
    `launch.py` prints it without a traceback and exits with code 2.
    """


class DivergedError(UserError):
    """Training ended because a term became NaN or infinite."""


class CollapsedError(UserError):
    """All vectors have the same code, which therefore carries no information."""


def require(condition: bool, message: str) -> None:
    """Raise UserError with `message` unless `condition` holds."""
    if not condition:
        raise UserError(message)


def one_line(error: Exception | str, *, limit: int | None = None) -> str:
    """Return the message of an error in one line, cut to `limit`; its type if empty."""
    text = " ".join(printable(str(error), kept="\n\t").split())[:limit]
    return text or type(error).__name__


def is_out_of_memory(error: Exception) -> bool:
    """Return whether NumPy or JAX could not allocate an array."""
    # JAX is not imported here.
    is_jax = type(error).__name__ in ("JaxRuntimeError", "XlaRuntimeError")
    is_exhausted = is_jax and "RESOURCE_EXHAUSTED" in str(error)
    return is_exhausted or isinstance(error, MemoryError)


def report_out_of_memory(error: Exception) -> None:
    """Print an error of `is_out_of_memory`, which has the bytes asked for."""
    report(
        f"out of memory ({one_line(error, limit=300)}): use a smaller batch or model"
    )


def printable(text: str, *, kept: str = "") -> str:
    r"""Replace characters that are not printable, except `kept`, by escapes.

    A file may contain names such as "\x1b[2J", which clears a terminal.
    """
    return "".join(
        char if char.isprintable() or char in kept else ascii(char)[1:-1]
        for char in text
    )


def report(error: Exception | str) -> None:
    """Print an error to stderr in one line."""
    text = str(error).strip()
    if "Traceback" in text:  # ml_collections includes the one of a failed config file.
        text = re.sub(r"^\w+: ", "", text.splitlines()[-1])
    print("error:", one_line(text), file=sys.stderr, flush=True)
