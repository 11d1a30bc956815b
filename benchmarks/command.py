"""The command line shared by all benchmarks."""

import argparse
import dataclasses
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from benchmarks import report

# Width in characters of output that is not shown in a terminal.
_WIDTH = 110


class Benchmark(NamedTuple):
    """A benchmark.

    name: name on the command line.
    measure: maps sizes and the number of rounds to tables, as they are completed.
    full: sizes of a full measurement, a dataclass.
    quick: sizes of a smoke test.
    rounds: default number of rounds.
    """

    name: str
    measure: Callable[[Any, int], Iterable[report.Table]]
    full: Any
    quick: Any
    rounds: int


def main(
    doc: str, benchmarks: Sequence[Benchmark], arguments: Sequence[str] | None = None
) -> None:
    """Run the selected benchmarks; print and write their tables.

    Args:
      doc: description for `--help`.
      benchmarks: benchmarks to choose from.
      arguments: command-line arguments, those of the process by default.
    """
    by_name = {benchmark.name: benchmark for benchmark in benchmarks}
    options = _parse(doc, list(by_name), arguments)
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    measured: dict[str, Any] = {"machine": report.machine(), "benchmarks": {}}
    console.print_json(json.dumps(measured["machine"]))
    for name in options.names or by_name:
        benchmark = by_name[name]
        sizes = benchmark.quick if options.quick else benchmark.full
        sizes = _override(sizes, options.set)
        rounds = options.rounds or benchmark.rounds
        console.rule(name)
        tables: list[dict[str, Any]] = []
        measured["benchmarks"][name] = {
            "sizes": dataclasses.asdict(sizes),
            "tables": tables,
        }
        for table in benchmark.measure(sizes, rounds):
            report.print_table(console, table)
            tables.append(report.as_json(table))
            # Write after each table, so that an interrupted run keeps its results.
            if options.json:
                options.json.write_text(json.dumps(measured, indent=2) + "\n")
    if options.figure:
        options.figure.write_bytes(report.figure(measured))


def _parse(
    doc: str, names: Sequence[str], arguments: Sequence[str] | None
) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if len(names) > 1:
        parser.add_argument(
            "names", nargs="*", help=f"any of {', '.join(names)} (default: all)"
        )
    else:
        parser.set_defaults(names=[])
    parser.add_argument("--rounds", type=int, help="timed calls of each function")
    parser.add_argument(
        "--quick", action="store_true", help="use tiny sizes, as a smoke test"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SIZE=VALUE",
        help="override a size, a number or a string; repeatable",
    )
    parser.add_argument("--json", type=Path, help="write the results to this JSON file")
    parser.add_argument("--figure", type=Path, help="plot the results to this PNG file")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in names]
    if unknown:
        parser.error(f"unknown benchmark {unknown[0]}; choose from {', '.join(names)}")
    return options


def _override(sizes: Any, changes: Sequence[str]) -> Any:
    """Apply `SIZE=VALUE` changes, ignoring sizes that this benchmark lacks."""
    for change in changes:
        key, _, value = change.partition("=")
        old = getattr(sizes, key, None)
        if isinstance(old, str | int | float):
            sizes = dataclasses.replace(sizes, **{key: type(old)(value)})
    return sizes
