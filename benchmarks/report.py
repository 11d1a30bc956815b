"""The report of a run: tables of results, the machine, and a figure."""

import datetime
import importlib.metadata
import io
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import rich.table
from matplotlib.ticker import LogLocator, NullLocator
from rich.console import Console

from benchmarks.timing import spread
from vqvae_jax.report import figures

_PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "numpy",
    "torch",
    "vector-quantize-pytorch",
    "dm-haiku",
)
_SPREAD = ("median", "lower_quartile", "upper_quartile")
# Lower bound on measured / goal, for the logarithmic axis.
_SMALLEST = 1e-3


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


def machine() -> dict[str, Any]:
    """Return the facts about the machine that the measurements depend on."""
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "device": jax.devices()[0].device_kind,
        "platform": jax.default_backend(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in _PACKAGES},
    }


def _processor() -> str:
    """Return the model name, from /proc/cpuinfo on Linux, where `platform` lacks it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1] for line in lines if line.startswith("model name")]
    return names[0].strip() if names else platform.machine()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def figure(report: dict[str, Any]) -> bytes:
    """Plot each outcome that has a goal relative to it, as a PNG.

    A bar shows the median divided by the goal, or the inverse if less is better, so
    bars that pass the line at 1 have reached their goals.
    """
    outcomes = [
        outcome
        for benchmark in report["benchmarks"].values()
        for table in benchmark["tables"]
        for outcome in table["outcomes"]
        if outcome["goal"]
    ]
    canvas = figures.new_figure(8.0, 1.2 + 0.32 * len(outcomes))
    axes = canvas.add_subplot()
    figures.style(axes)
    for row, outcome in enumerate(reversed(outcomes)):
        ends = [_over_goal(outcome, key) for key in _SPREAD]
        colour = "#2f855a" if outcome["is_reached"] else "#dd6b20"
        axes.barh(row, ends[0], color=colour, height=0.6)
        axes.plot(ends[1:], [row, row], color=figures.INK, linewidth=1.2)
    axes.set_yticks(range(len(outcomes)), [_label(o) for o in reversed(outcomes)])
    axes.set_xscale("log")
    axes.axvline(1, color=figures.INK, linewidth=1)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(lambda ratio, _: f"{ratio:g}")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.tick_params(axis="x", colors=figures.INK, labelsize=8)
    axes.set_xlabel("measured / goal (lines: quartiles)", color=figures.INK, fontsize=8)
    machine = report["machine"]
    axes.set_title(
        f"{machine['processor']}, {machine['cores']} cores, {machine['device']}, "
        f"JAX {machine['versions']['jax']}, {machine['date']}",
        fontsize=8,
        color=figures.INK,
    )
    with io.BytesIO() as picture:
        canvas.savefig(picture, format="png", dpi=150, facecolor="white")
        return picture.getvalue()


def _over_goal(outcome: dict[str, Any], key: str) -> float:
    value = max(outcome[key], _SMALLEST * outcome["goal"])
    ratio = value / outcome["goal"]
    return 1 / ratio if outcome["at_most"] else ratio


def _label(outcome: dict[str, Any]) -> str:
    return f"{outcome['name']}: {outcome['median']:.3g}"
