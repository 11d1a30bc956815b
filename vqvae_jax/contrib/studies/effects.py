"""The effect of an option on a metric, compared with the variation over seeds."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

Results = Mapping[str, float]


class Spread(NamedTuple):
    """A metric over the seeds of one setting.

    mean: mean over the seeds that report the metric; NaN if none does.
    low: minimum over them.
    high: maximum over them.
    """

    mean: float
    low: float
    high: float


class Effect(NamedTuple):
    """The range of a metric over option values and over seeds.

    across_values: range of the per-value means.
    across_seeds: largest range over the seeds of one value.
    """

    across_values: float
    across_seeds: float


def spread(seeds: Sequence[Results], name: str) -> Spread:
    """Return the mean and range of a metric over the seeds that report it.

    A diverged seed is `{}`. Some settings lack some metrics: bits, for example, need a
    discrete likelihood.
    """
    values = [results[name] for results in seeds if name in results]
    if not values:
        return Spread(np.nan, np.nan, np.nan)
    return Spread(float(np.mean(values)), min(values), max(values))


def effect(settings: Mapping[str, Sequence[Results]], name: str) -> Effect:
    """Compare the settings of one option by one metric.

    Args:
      settings: results of the seeds for each value of the option.
      name: name of the metric.
    """
    spreads = [spread(seeds, name) for seeds in settings.values()]
    finite = [each for each in spreads if np.isfinite(each.mean)]
    if not finite:
        return Effect(np.nan, np.nan)
    means = [each.mean for each in finite]
    ranges = [each.high - each.low for each in finite]
    return Effect(max(means) - min(means), max(ranges))
