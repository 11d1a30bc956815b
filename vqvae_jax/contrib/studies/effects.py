"""What a choice changes: one figure over the values of an option, beside the seeds."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

Results = Mapping[str, float]


class Spread(NamedTuple):
    """One figure over the seeds of one setting.

    mean, low, high: over the seeds that have it; NaN if none has.
    """

    mean: float
    low: float
    high: float


class Effect(NamedTuple):
    """What an option's values change, beside what the seeds change.

    across_values: highest less lowest of the values' means.
    across_seeds: highest less lowest over the seeds, at its largest among the values.
    """

    across_values: float
    across_seeds: float


def spread(seeds: Sequence[Results], name: str) -> Spread:
    """Return a figure's mean and range over the seeds that have it.

    `{}` is one that diverged; a figure may also be of some settings only, such as bits
    where the likelihood is discrete.
    """
    values = [results[name] for results in seeds if name in results]
    if not values:
        return Spread(np.nan, np.nan, np.nan)
    return Spread(float(np.mean(values)), min(values), max(values))


def effect(settings: Mapping[str, Sequence[Results]], name: str) -> Effect:
    """Compare the settings of one option by one figure.

    Args:
      settings: the seeds' results for each value of the option.
      name: of the figure.
    """
    spreads = [spread(seeds, name) for seeds in settings.values()]
    means = [each.mean for each in spreads if np.isfinite(each.mean)]
    ranges = [each.high - each.low for each in spreads if np.isfinite(each.mean)]
    if not means:
        return Effect(np.nan, np.nan)
    return Effect(max(means) - min(means), max(ranges))
