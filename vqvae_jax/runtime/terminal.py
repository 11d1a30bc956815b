"""What a program prints: any text, tables, and each error once.

A pipe or a file receives whole lines: they are wrapped on terminals only.
"""

import io
import itertools
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from vqvae_jax.runtime.errors import printable


def print_line(text: str, *, style: str | None = None) -> None:
    """Print a line."""
    # Imported here, as this module is imported before a command line is checked.
    import rich

    console = rich.get_console()
    options = {"markup": False, "soft_wrap": not console.is_terminal}
    console.print(printable(text), style=style, **options)


def print_table(rows: Mapping[str, str]) -> None:
    """Print names and texts in two columns."""
    print_columns(list(rows.items()), has_header=False)


def print_columns(rows: Sequence[Sequence[str]], *, has_header: bool = True) -> None:
    """Print rows in columns, the first in bold; a cell can have several lines."""
    import rich
    import rich.table
    from rich.text import Text

    console = rich.get_console()
    rows = [[printable(cell, kept="\n") for cell in row] for row in rows]
    if not console.is_terminal:
        for line in _aligned(rows):
            print_line(line)
        return
    table = rich.table.Table(show_header=has_header, box=None, pad_edge=False)
    header, rows = (rows[0], rows[1:]) if has_header else ([""] * len(rows[0]), rows)
    for number, title in enumerate(header):
        look = {"overflow": "fold"} if number else {"style": "bold", "no_wrap": True}
        table.add_column(Text(title), **look)
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)


def _aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield lines of text with columns of equal width."""
    lines = [
        line
        for row in rows
        for line in itertools.zip_longest(
            *(cell.split("\n") for cell in row), fillvalue=""
        )
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        yield "  ".join(cells).rstrip()


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
