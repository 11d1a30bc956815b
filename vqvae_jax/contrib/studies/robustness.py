"""Measure the effect of single options on a VQ-VAE's results (section 3.2).

One option of the model is changed at a time; all others have the values of `base`.

workdir/results.json         every metric of every seed, and the effect of each option
workdir/report.html          the metrics as a table and a plot
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from vqvae_jax import metrics
from vqvae_jax.contrib.studies import runs
from vqvae_jax.data.dataset import Dataset, open_dataset
from vqvae_jax.experiment import Experiment
from vqvae_jax.options import flatten
from vqvae_jax.report import figures
from vqvae_jax.report.page import Picture, Section, render
from vqvae_jax.runtime.errors import require
from vqvae_jax.training import sharding
from vqvae_jax.training.early_stopping import is_marked
from vqvae_jax.training.loop import make_evaluation
from vqvae_jax.workdir import Workdir

_SECTIONS = ("seeds", "base", "vary")
_BASE = "base"
# Columns of the table: metric of a VQ-VAE's evaluation, heading, digits.
_COLUMNS = (
    ("bits_per_dim_uniform_prior", "bits/dim, uniform prior", 3),
    ("psnr_db", "PSNR (dB)", 2),
    ("codebook_perplexity", "perplexity", 1),
    ("codebook_active_codes", "codes in use", 1),
)
# Option -> value -> metrics of each seed.
Measured = dict[str, dict[str, list[dict[str, float]]]]


class Effect(NamedTuple):
    """The range of a metric over option values and over seeds.

    across_values: range of the per-value means.
    across_seeds: largest range over the seeds of one value.
    """

    across_values: float
    across_seeds: float


def effect(settings: Mapping[str, Sequence[runs.Results]], name: str) -> Effect:
    """Compare the settings of one option by one metric.

    Args:
      settings: results of the seeds for each value of the option.
      name: name of the metric.
    """
    spreads = [runs.spread(seeds, name) for seeds in settings.values()]
    finite = [each for each in spreads if np.isfinite(each.mean)]
    if not finite:
        return Effect(np.nan, np.nan)
    means = [each.mean for each in finite]
    ranges = [each.high - each.low for each in finite]
    return Effect(max(means) - min(means), max(ranges))


def run(config: Mapping[str, Any], workdir: str, *, command: str = "") -> None:
    """Train a VQ-VAE for each value of each option and each seed, and compare them.

    Args:
      config: `seeds`, their number; `base`, an experiment's config; `vary`, values of
        options of its `model` section, nested as in that section.
      workdir: created if missing.
      command: command line, saved for the report.

    Raises:
      UserError: a config, the data or the workdir is invalid.
    """
    runs.require_sections(config, _SECTIONS)
    configs = {
        name: runs.with_model_options(config["base"], changes)
        for name, changes in _settings(config).items()
    }
    experiments = runs.checked(config, _SECTIONS, configs)
    require(
        hasattr(experiments[_BASE].model, "quantizer"),
        "base.model.kind must be a model with a quantizer, such as vqvae, got "
        f"{experiments[_BASE].kind}",
    )
    directory = Workdir(workdir)
    directory.require_usable(config)
    directory.begin(config, command=command)
    runs.run_all(
        directory, configs, seeds=config["seeds"], only=(experiments[_BASE].kind,)
    )
    dataset = open_dataset(experiments[_BASE].data)
    evaluated = {
        name: [
            _measured(each, experiment, dataset)
            for each in runs.runs_of(directory, name, config["seeds"])
        ]
        for name, experiment in experiments.items()
    }
    measured = {
        option: {
            str(value): evaluated[_name(config, option, value)] for value in values
        }
        for option, values in flatten(config["vary"]).items()
    }
    names = [
        row
        for row in _COLUMNS
        if any(row[0] in r for seeds in evaluated.values() for r in seeds)
    ]
    require(bool(names), f"all {len(evaluated)} settings diverged with every seed")
    table = _table(config, measured, names)
    directory.write_json(directory.results, _as_json(config, measured, names))
    page = _page(directory, config, measured, names, table)
    runs.publish(directory, page, table)


def _settings(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the changes of each setting to the base's model, by directory name."""
    model = flatten(config["base"]["model"])
    kinds = ("kind", "quantizer.kind")
    settings: dict[str, dict[str, Any]] = {_BASE: {}}
    for option, values in flatten(config["vary"]).items():
        require(
            option in model and option not in kinds,
            f"vary.{option} is not an option of base.model; there are "
            f"{', '.join(name for name in model if name not in kinds)}",
        )
        require(len(values) > 0, f"vary.{option} has no values")
        for value in values:
            if value != model[option]:
                settings[_name(config, option, value)] = {option: value}
    return settings


def _name(config: Mapping[str, Any], option: str, value: Any) -> str:
    """Return the directory of a setting: the option's last part, if that is unique."""
    if value == _base_value(config, option):
        return _BASE
    last = option.rpartition(".")[2]
    same = [each for each in flatten(config["vary"]) if each.rpartition(".")[2] == last]
    return f"{last if len(same) == 1 else option}={value}"


def _base_value(config: Mapping[str, Any], option: str) -> Any:
    return flatten(config["base"]["model"])[option]


def _measured(
    workdir: Workdir, experiment: Experiment, dataset: Dataset
) -> dict[str, float]:
    """Evaluate a run on the test split, once; return `{}` if it diverged."""
    path = workdir.path / "test.json"
    if path.exists():
        return workdir.read_json(path)
    if not is_marked(workdir.checkpoints(experiment.kind)):
        return {}
    model, params = workdir.restore()
    mesh = sharding.data_mesh()
    params = sharding.put_replicated(params, mesh)
    evaluation = make_evaluation(model.evaluate, mesh)
    values = metrics.compute(evaluation(params, experiment.eval_batches(dataset.test)))
    workdir.write_json(path, values)
    return values


def _table(config, measured: Measured, names) -> list[list[str]]:
    """Return rows of text, the header first."""
    rows = [["option", "value", *(head for _, head, _ in names)]]
    for option, settings in measured.items():
        for value, seeds in settings.items():
            is_base = str(_base_value(config, option)) == value
            cells = [runs.cell(seeds, name, digits) for name, _, digits in names]
            rows.append([option, value + (" (base)" if is_base else ""), *cells])
    return rows


def _as_json(config, measured: Measured, names) -> dict[str, Any]:
    return {
        "seeds": config["seeds"],
        "budget": runs.budget(config["base"], "training"),
        "base": {option: _base_value(config, option) for option in measured},
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
            f"{option} changes {head} by {values:.{digits}f}; seeds alone change it by "
            f"up to {seeds:.{digits}f}."
        )


def _page(directory, config, measured: Measured, names, table) -> str:
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
        f"{config['seeds']} seeds; mean and half the range over seeds, on the test "
        "split. One option is changed at a time."
    )
    alt = "Each metric for each value of each option, one point per seed"
    return render(
        f"Robustness: {directory.path.resolve().name}",
        results={},
        sections=[
            Section("Results by option", text, [], table),
            Section(
                "Effects of options and of seeds",
                " ".join(_sentences(measured, names)),
                [Picture(figures.svg(figure), alt)],
            ),
        ],
        config=config,
        command=directory.read_command(),
    )
