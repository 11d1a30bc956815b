"""The runs of a suite: several configs, each with several seeds.

workdir/<name>/<seed>/     a run each, as `stages.run` leaves it
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import rich
from rich.markup import escape

from vqvae_jax import pipeline
from vqvae_jax.experiment import Experiment
from vqvae_jax.runtime.errors import CollapsedError, DivergedError, require
from vqvae_jax.runtime.locks import locked
from vqvae_jax.workdir import Workdir

Config = Mapping[str, Any]


def checked(
    config: Config, sections: Sequence[str], configs: Mapping[str, Config]
) -> dict[str, Experiment]:
    """Check a suite's config and those of its runs, before the first one starts.

    Raises:
      UserError: a section is missing, or a config cannot be.
    """
    for name in sections:
        require(name in config, f"{name} is missing from the config")
    require(config["seeds"] >= 1, f"seeds must be at least 1, got {config['seeds']}")
    return {name: Experiment.from_config(each) for name, each in configs.items()}


def run_all(
    place: Workdir,
    configs: Mapping[str, Config],
    *,
    seeds: int,
    only: Sequence[str] = (),
) -> None:
    """Run every config with every seed; who diverges or collapses is told and left.

    Args:
      place: where the runs' directories are.
      configs: by name.
      seeds: how many, counted from each config's own.
      only: stages, all by default.

    Raises:
      UserError: another process works in one of the directories.
    """
    with locked(place.path):
        for seed, (name, config) in itertools.product(range(seeds), configs.items()):
            rich.print(f"[bold]{escape(name)}[/bold], seed {seed}")
            of_seed = {**config, "seed": config["seed"] + seed}
            try:
                pipeline.run(of_seed, str(run_of(place, name, seed).path), only)
            except (DivergedError, CollapsedError) as error:
                rich.print(escape(f"{name}, seed {seed}: {error}"))


def run_of(place: Workdir, name: str, seed: int) -> Workdir:
    """Return the directory of one run."""
    return Workdir(place.path / name / str(seed))


def runs_of(place: Workdir, name: str, seeds: int) -> Iterator[Workdir]:
    """Return the directories of a config's runs."""
    return (run_of(place, name, seed) for seed in range(seeds))


def budget(config: Config, *sections: str) -> str:
    """Say what a run is trained on."""
    parts = [config[name] for name in sections if name in config]
    return " + ".join(
        f"{part['steps']:,} steps of {part['batch_size']}" for part in parts
    )
