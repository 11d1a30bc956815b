"""Several runs under one config, and what they say together."""

from collections.abc import Mapping
from typing import Any

from vqvae_jax.contrib.studies import comparison, robustness

# By the section that only such a config has.
_SUITES = {"systems": comparison.run, "vary": robustness.run}


def is_suite(config: Mapping[str, Any]) -> bool:
    """Say whether a config is of several runs, not of one."""
    return any(name in config for name in _SUITES)


def run(config: Mapping[str, Any], workdir: str, *, command: str = "") -> None:
    """Do all of a config's runs, and write `results.json` and `report.html`.

    Each run has its own workdir inside; what is finished is not done again.

    Raises:
      UserError: a config, the data or the workdir cannot be used.
    """
    next(suite for name, suite in _SUITES.items() if name in config)(
        config, workdir, command=command
    )
