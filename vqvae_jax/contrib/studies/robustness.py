"""Section 3.2's claim and its like: how much a VQ-VAE's results depend on an option.

One option of the model is changed at a time, the others keep the values of `base`.

workdir/results.json         every figure of every seed, and the effect of each option
workdir/report.html          the same as a table and a figure
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import rich
import rich.table
from rich.markup import escape

from vqvae_jax import metrics
from vqvae_jax.contrib.studies import runs
from vqvae_jax.contrib.studies.effects import effect, spread
from vqvae_jax.data.dataset import Dataset, open_dataset
from vqvae_jax.experiment import Experiment
from vqvae_jax.report import figures
from vqvae_jax.report.page import Picture, Section, render
from vqvae_jax.runtime.errors import require
from vqvae_jax.training import sharding
from vqvae_jax.training.early_stopping import is_marked
from vqvae_jax.training.evaluate import make_evaluation
from vqvae_jax.workdir import Workdir, restore

_SECTIONS = ("seeds", "base", "vary")
_BASE = "base"
# Figures of the table, of those that a VQ-VAE's evaluation has: name, head, digits.
_COLUMNS = (
    ("bits_per_dim_uniform_prior", "bits/dim, uniform prior", 3),
    ("psnr_db", "PSNR (dB)", 2),
    ("codebook_perplexity", "perplexity", 1),
    ("codebook_active_codes", "codes in use", 1),
)
# Option -> value -> the seeds' figures.
Measured = dict[str, dict[str, list[dict[str, float]]]]


def run(config: Mapping[str, Any], workdir: str, *, command: str = "") -> None:
    """Train a VQ-VAE for each value of each option and each seed, and compare them.

    Args:
      config: `seeds`, how many; `base`, an experiment's config; `vary`, a list of
        values for each option of its `model` section.
      workdir: made if it does not exist.
      command: what was typed to start it, kept for the report.

    Raises:
      UserError: a config, the data or the workdir cannot be used.
    """
    for name in _SECTIONS:
        require(name in config, f"{name} is missing from the config")
    configs = {
        name: _changed(config["base"], changes)
        for name, changes in _settings(config).items()
    }
    experiments = runs.checked(config, _SECTIONS, configs)
    require(
        experiments[_BASE].kind == "vqvae",
        f"base.model.kind must be vqvae, got {experiments[_BASE].kind}",
    )
    place = Workdir(workdir)
    place.require_usable(config)
    place.begin(config, command=command)
    runs.run_all(place, configs, seeds=config["seeds"], only=("vqvae",))
    dataset = open_dataset(experiments[_BASE].data)
    of_settings = {
        name: [
            _measured(each, experiment, dataset)
            for each in runs.runs_of(place, name, config["seeds"])
        ]
        for name, experiment in experiments.items()
    }
    measured = {
        option: {
            str(value): of_settings[_name(config, option, value)] for value in values
        }
        for option, values in config["vary"].items()
    }
    names = [
        row
        for row in _COLUMNS
        if any(row[0] in r for seeds in of_settings.values() for r in seeds)
    ]
    require(bool(names), f"all {len(of_settings)} settings diverged with every seed")
    table = _table(config, measured, names)
    place.write_json(place.results, _as_json(config, measured, names))
    page = _page(place, config, measured, names, table)
    place.write_bytes(place.report, page.encode())
    _print(table)
    rich.print(escape(f"report: {place.report}"))


def _settings(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what each setting changes of the base's model, by its directory's name."""
    model = config["base"]["model"]
    settings: dict[str, dict[str, Any]] = {_BASE: {}}
    for option, values in config["vary"].items():
        require(
            option in model and option != "kind",
            f"vary.{option} is not an option of base.model; there are "
            f"{', '.join(name for name in model if name != 'kind')}",
        )
        require(len(values) > 0, f"vary.{option} has no values")
        for value in values:
            if value != model[option]:
                settings[_name(config, option, value)] = {option: value}
    return settings


def _name(config: Mapping[str, Any], option: str, value: Any) -> str:
    return _BASE if value == config["base"]["model"][option] else f"{option}={value}"


def _changed(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    return {**base, "model": {**base["model"], **changes}}


def _measured(
    workdir: Workdir, experiment: Experiment, dataset: Dataset
) -> dict[str, float]:
    """Evaluate on the test split, once; `{}` for a run that diverged."""
    kept = workdir.path / "test.json"
    if kept.exists():
        return workdir.read_json(kept)
    if not is_marked(workdir.checkpoints(experiment.kind)):
        return {}
    model, params = restore(workdir.path)
    mesh = sharding.data_mesh()
    params = sharding.put_replicated(params, mesh)
    evaluation = make_evaluation(model, mesh)
    values = metrics.compute(evaluation(params, experiment.eval_batches(dataset.test)))
    workdir.write_json(kept, values)
    return values


def _table(config, measured: Measured, names) -> list[list[str]]:
    """Return rows of text, the head first."""
    rows = [["option", "value", *(head for _, head, _ in names)]]
    for option, settings in measured.items():
        for value, seeds in settings.items():
            of_base = str(config["base"]["model"][option]) == value
            cells = [_cell(seeds, name, digits) for name, _, digits in names]
            rows.append([option, value + (" (base)" if of_base else ""), *cells])
    return rows


def _cell(seeds, name: str, digits: int) -> str:
    mean, low, high = spread(seeds, name)
    if not np.isfinite(mean):
        return "not defined" if any(seeds) else "diverged"
    text = f"{mean:.{digits}f} ± {(high - low) / 2:.{digits}f}"
    diverged = sum(not results for results in seeds)
    return text + (f", {diverged} of {len(seeds)} diverged" if diverged else "")


def _as_json(config, measured: Measured, names) -> dict[str, Any]:
    return {
        "seeds": config["seeds"],
        "budget": runs.budget(config["base"], "training"),
        "base": {option: config["base"]["model"][option] for option in measured},
        "settings": {
            option: {
                value: {name: [r.get(name) for r in seeds] for name, _, _ in names}
                for value, seeds in settings.items()
            }
            for option, settings in measured.items()
        },
        "effects": {
            option: {name: effect(settings, name)._asdict() for name, _, _ in names}
            for option, settings in measured.items()
        },
    }


def _sentences(measured: Measured, names) -> Iterator[str]:
    name, head, digits = names[0]
    for option, settings in measured.items():
        values, seeds = effect(settings, name)
        yield (
            f"{option} moves {head} by {values:.{digits}f}, where seeds alone move it "
            f"by up to {seeds:.{digits}f}."
        )


def _page(place, config, measured: Measured, names, table) -> str:
    figure = figures.settings(
        {
            option: {
                value: {
                    head: [r[name] for r in seeds if name in r]
                    for name, head, _ in names
                }
                for value, seeds in settings.items()
            }
            for option, settings in measured.items()
        }
    )
    text = (
        f"Trained for {runs.budget(config['base'], 'training')} each, "
        f"{config['seeds']} seeds; mean and half the range over them, on the test "
        "split. One option is changed at a time."
    )
    alt = "Each figure for each value of each option, a point for each seed"
    return render(
        f"Robustness: {place.path.resolve().name}",
        results={},
        sections=[
            Section("What each option changes", text, [], table),
            Section(
                "Beside the seeds",
                " ".join(_sentences(measured, names)),
                [Picture(figures.svg(figure), alt)],
            ),
        ],
        config=config,
        command=place.read_command(),
    )


def _print(table: list[list[str]]) -> None:
    shown = rich.table.Table(*table[0])
    for row in table[1:]:
        shown.add_row(*row)
    rich.print(shown)
