"""The runs of a study: several configs, each with several seeds.

workdir/<name>/<seed>/     one run
"""

import copy
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from vqvae_jax import pipeline
from vqvae_jax.experiment import Experiment
from vqvae_jax.runtime.errors import CollapsedError, DivergedError, require
from vqvae_jax.runtime.locks import locked
from vqvae_jax.runtime.terminal import print_columns, print_line
from vqvae_jax.workdir import Workdir

Config = Mapping[str, Any]
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


def require_sections(config: Config, sections: Sequence[str]) -> None:
    """Raise UserError unless a study's config has these sections."""
    for name in sections:
        require(name in config, f"{name} is missing from the config")


def with_model_options(base: Config, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return an experiment's config with changes of dotted keys of its `model`.

    A section that does not exist is added, for the check of the config to report.
    """
    model = copy.deepcopy(dict(base["model"]))
    for option, value in changes.items():
        *sections, name = option.split(".")
        section = model
        for each in sections:
            if not isinstance(section.get(each), Mapping):
                section[each] = {}
            section = section[each]
        section[name] = value
    return {**base, "model": model}


def checked(
    config: Config, sections: Sequence[str], configs: Mapping[str, Config]
) -> dict[str, Experiment]:
    """Check the configs of a study and of its runs, before the first run starts.

    Raises:
      UserError: a section is missing, or a config is invalid.
    """
    require_sections(config, sections)
    require(config["seeds"] >= 1, f"seeds must be at least 1, got {config['seeds']}")
    return {name: Experiment.from_config(each) for name, each in configs.items()}


def run_all(
    directory: Workdir,
    configs: Mapping[str, Config],
    *,
    seeds: int,
    only: Sequence[str] = (),
) -> None:
    """Run every config with every seed; log and skip diverged or collapsed runs.

    Args:
      directory: workdir of the study.
      configs: config of an experiment, by name.
      seeds: number of seeds; the first one is the config's.
      only: stages to run; all by default.

    Raises:
      UserError: another process uses one of the directories.
    """
    with locked(directory.path):
        for seed, (name, config) in itertools.product(range(seeds), configs.items()):
            print_line(f"{name}, seed {seed}", style="bold")
            with_seed = {**config, "seed": config["seed"] + seed}
            try:
                path = run_of(directory, name, seed).path
                pipeline.run(with_seed, str(path), only, brief=True)
            except (DivergedError, CollapsedError) as error:
                print_line(f"{name}, seed {seed}: {error}")


def run_of(directory: Workdir, name: str, seed: int) -> Workdir:
    """Return the directory of one run."""
    return Workdir(directory.path / name / str(seed))


def runs_of(directory: Workdir, name: str, seeds: int) -> Iterator[Workdir]:
    """Return the directories of a config's runs."""
    return (run_of(directory, name, seed) for seed in range(seeds))


def budget(config: Config, *sections: str) -> str:
    """Return the training budget of a run."""
    parts = [config[name] for name in sections if name in config]
    return " + ".join(
        f"{part['steps']:,} steps of {part['batch_size']}" for part in parts
    )


def spread(seeds: Sequence[Results], name: str) -> Spread:
    """Return the mean and range of a metric over the seeds that report it.

    A diverged seed is `{}`. Some settings lack some metrics: bits, for example, need a
    discrete likelihood.
    """
    values = [results[name] for results in seeds if name in results]
    if not values:
        return Spread(np.nan, np.nan, np.nan)
    return Spread(float(np.mean(values)), min(values), max(values))


def cell(seeds: Sequence[Results], name: str, digits: int) -> str:
    """Return the mean and half the range of a metric over the seeds, as text."""
    mean, low, high = spread(seeds, name)
    if not np.isfinite(mean):
        return "not defined" if any(seeds) else "diverged"
    text = f"{mean:.{digits}f} ± {(high - low) / 2:.{digits}f}"
    diverged = sum(not results for results in seeds)
    return text + (f", {diverged} of {len(seeds)} diverged" if diverged else "")


def publish(directory: Workdir, page: str, table: Sequence[Sequence[str]]) -> None:
    """Write the page of a study, and print its table, header first."""
    directory.write_bytes(directory.report, page.encode())
    print_columns(table)
    print_line(f"report: {directory.report}")
