"""The command line that all benchmarks share."""

import argparse
import dataclasses
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from benchmarks import figure, machine, tables

# Of what goes to a file.
_WIDTH = 110


class Benchmark(NamedTuple):
    """One benchmark.

    name: what the command line calls it.
    measure: (sizes, rounds) -> what it finds, as it finds it.
    full: sizes to measure, a dataclass.
    quick: those of a smoke test.
    rounds: unless the command line says others.
    """

    name: str
    measure: Callable[[Any, int], Iterable[tables.Table]]
    full: Any
    quick: Any
    rounds: int


def main(
    doc: str, benchmarks: Sequence[Benchmark], arguments: Sequence[str] | None = None
) -> None:
    """Read the command line, measure, print and write.

    Args:
      doc: tells what is measured.
      benchmarks: to choose from.
      arguments: those of the process by default.
    """
    by_name = {benchmark.name: benchmark for benchmark in benchmarks}
    options = _parse(doc, list(by_name), arguments)
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    report: dict[str, Any] = {"machine": machine.describe(), "benchmarks": {}}
    console.print_json(json.dumps(report["machine"]))
    for name in options.names or by_name:
        benchmark = by_name[name]
        sizes = benchmark.quick if options.quick else benchmark.full
        sizes = _changed(sizes, options.set)
        rounds = options.rounds or benchmark.rounds
        console.rule(name)
        found: list[dict[str, Any]] = []
        report["benchmarks"][name] = {
            "sizes": dataclasses.asdict(sizes),
            "tables": found,
        }
        for table in benchmark.measure(sizes, rounds):
            tables.print_table(console, table)
            found.append(tables.as_json(table))
            # After each, so that an interrupted run keeps what it has measured.
            if options.json:
                options.json.write_text(json.dumps(report, indent=2) + "\n")
    if options.figure:
        options.figure.write_bytes(figure.draw(report))


def _parse(
    doc: str, names: Sequence[str], arguments: Sequence[str] | None
) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if len(names) > 1:
        parser.add_argument(
            "names", nargs="*", help=f"some of {', '.join(names)} (default: all)"
        )
    else:
        parser.set_defaults(names=[])
    parser.add_argument("--rounds", type=int, help="calls of each, in turns")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: a smoke test")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SIZE=VALUE",
        help="change a number or a word of the sizes",
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--figure", type=Path, help="draw them into this PNG")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in names]
    if unknown:
        parser.error(f"there is no {unknown[0]}; choose from {', '.join(names)}")
    return options


def _changed(sizes: Any, changes: Sequence[str]) -> Any:
    """Return sizes with those replaced that they have."""
    for change in changes:
        key, _, value = change.partition("=")
        old = getattr(sizes, key, None)
        if isinstance(old, str | int | float):
            sizes = dataclasses.replace(sizes, **{key: type(old)(value)})
    return sizes
