"""Tables of benchmark results, printed and as JSON."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import rich.table
from rich.console import Console

from benchmarks.timing import spread


class Row(NamedTuple):
    """The measurements of one contestant or one size.

    name: name of the row.
    seconds: run time in each round; empty if not measured.
    figures: other numbers, with units in their names.
    note: the reason for missing seconds.
    """

    name: str
    seconds: Sequence[float] = ()
    figures: Mapping[str, float] = {}
    note: str = ""


class Outcome(NamedTuple):
    """A derived number with an optional goal.

    name: name of the outcome.
    values: one value per round, or a single value.
    goal: goal of the median, or None.
    at_most: whether smaller is better.
    """

    name: str
    values: Sequence[float]
    goal: float | None = None
    at_most: bool = False

    @property
    def is_reached(self) -> bool | None:
        """Whether the median reaches the goal; None without a goal."""
        if self.goal is None:
            return None
        median = spread(self.values).median
        return median <= self.goal if self.at_most else median >= self.goal


class Table(NamedTuple):
    """Rows measured in turns, and the outcomes derived from them."""

    title: str
    rows: Sequence[Row]
    outcomes: Sequence[Outcome] = ()


def as_json(table: Table) -> dict[str, Any]:
    """Return a table as nested dicts, with medians and quartiles."""
    return {
        "title": table.title,
        "rows": [
            {
                "name": row.name,
                "rounds": len(row.seconds),
                **_spread_as_json(row.seconds, "_seconds"),
                **row.figures,
                **({"note": row.note} if row.note else {}),
            }
            for row in table.rows
        ],
        "outcomes": [
            {
                "name": outcome.name,
                **_spread_as_json(outcome.values, ""),
                "goal": outcome.goal,
                "at_most": outcome.at_most,
                "is_reached": outcome.is_reached,
            }
            for outcome in table.outcomes
        ],
    }


def print_table(console: Console, table: Table) -> None:
    """Print a table, with its outcomes below."""
    names = list(dict.fromkeys(key for row in table.rows for key in row.figures))
    shown = rich.table.Table(title=table.title, title_justify="left")
    shown.add_column("", no_wrap=True)
    timed = any(row.seconds for row in table.rows)
    for header in ("seconds", "quartiles") if timed else ():
        shown.add_column(header, justify="right", no_wrap=True)
    for name in names:
        shown.add_column(name.replace("_", " "), justify="right")
    for row in table.rows:
        cells = []
        if timed and row.seconds:
            median, lower, upper = spread(row.seconds)
            cells = [as_text(median), f"{as_text(lower)}-{as_text(upper)}"]
        elif timed:
            cells = [row.note or "", ""]
        cells += [as_text(row.figures[n]) if n in row.figures else "" for n in names]
        shown.add_row(row.name, *cells)
    console.print(shown)
    for outcome in table.outcomes:
        console.print("  " + _outcome_text(outcome), highlight=False)
    console.print()


def as_text(number: float) -> str:
    """Format a number with three significant digits, or as an integer from 100 on."""
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"


def _outcome_text(outcome: Outcome) -> str:
    median, lower, upper = spread(outcome.values)
    text = f"{outcome.name}: {as_text(median)}"
    if len(outcome.values) > 1:
        text += f" ({as_text(lower)}-{as_text(upper)})"
    if outcome.goal is None:
        return text
    bound = "at most" if outcome.at_most else "at least"
    reached = "reached" if outcome.is_reached else "missed"
    return f"{text}, goal {bound} {as_text(outcome.goal)}: {reached}"


def _spread_as_json(values: Sequence[float], unit: str) -> dict[str, float]:
    if not values:
        return {}
    median, lower, upper = spread(values)
    return {
        f"median{unit}": median,
        f"lower_quartile{unit}": lower,
        f"upper_quartile{unit}": upper,
    }
