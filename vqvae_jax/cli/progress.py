"""A progress bar on a terminal."""

import contextlib
from collections.abc import Callable, Iterator

import rich
import rich.progress


@contextlib.contextmanager
def shown(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a progress bar; yield the function that advances it."""
    console = rich.get_console()
    columns = (
        rich.progress.TextColumn("[bold]{task.description}"),
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TimeRemainingColumn(),
    )
    bar = rich.progress.Progress(*columns, disable=not console.is_terminal)
    task = bar.add_task(what, total=total)
    with bar:
        yield lambda more: bar.advance(task, more)
