"""A plot of a benchmark report."""

import io
from typing import Any

from matplotlib.ticker import LogLocator, NullLocator

from vqvae_jax.report import figures


def draw(report: dict[str, Any]) -> bytes:
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


_SPREAD = ("median", "lower_quartile", "upper_quartile")
# Lower bound on measured / goal, for the logarithmic axis.
_SMALLEST = 1e-3


def _over_goal(outcome: dict[str, Any], key: str) -> float:
    value = max(outcome[key], _SMALLEST * outcome["goal"])
    ratio = value / outcome["goal"]
    return 1 / ratio if outcome["at_most"] else ratio


def _label(outcome: dict[str, Any]) -> str:
    return f"{outcome['name']}: {outcome['median']:.3g}"
