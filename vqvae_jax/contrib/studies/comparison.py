"""Compare the slides' systems under one budget.

workdir/results.json         the table, with the numbers behind each cell
workdir/report.html          the table, with samples
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import rich
import rich.table
from rich.markup import escape

from vqvae_jax import registry
from vqvae_jax.contrib.studies import runs
from vqvae_jax.contrib.studies.questions import Table, Trained, compare
from vqvae_jax.contrib.studies.sharpness import sharpness_ratios
from vqvae_jax.data.dataset import Dataset, open_dataset
from vqvae_jax.data.source import first_examples
from vqvae_jax.experiment import Experiment
from vqvae_jax.report import image_grid
from vqvae_jax.report.page import Picture, Section, render
from vqvae_jax.workdir import Workdir

_SECTIONS = ("seeds", "systems")
_IMAGES = 2000


def run(config: Mapping[str, Any], workdir: str, *, command: str = "") -> None:
    """Train every system with every seed, and write the comparison.

    Args:
      config: `seeds`, their number, and `systems`, an experiment's config by name.
      workdir: created if missing.
      command: command line, saved for the report.

    Raises:
      UserError: a config, the data or the workdir is invalid.
    """
    systems = config["systems"]
    configs = {name: systems[name] for name in _in_order(systems)}
    experiments = runs.checked(config, _SECTIONS, configs)
    directory = Workdir(workdir)
    directory.require_usable(config)
    directory.begin(config, command=command)
    runs.run_all(directory, configs, seeds=config["seeds"])
    dataset = open_dataset(next(iter(experiments.values())).data)
    real = first_examples(dataset.test, min(_IMAGES, len(dataset.test)))["image"]
    trained = {
        name: [
            _trained(each, experiment, real)
            for each in runs.runs_of(directory, name, config["seeds"])
        ]
        for name, experiment in experiments.items()
    }
    traits = {name: each.model.traits for name, each in experiments.items()}
    table = compare(trained, traits)
    directory.write_json(directory.results, _as_json(table, config))
    page = _page(directory, config, experiments, dataset, table)
    directory.write_bytes(directory.report, page.encode())
    _print(table)
    rich.print(escape(f"report: {directory.report}"))


def _in_order(systems: Mapping[str, Any]) -> list[str]:
    """Return the names in the order of the slides; a config sorts its keys."""
    slides = ("gan", "vae", "pixelcnn", "vqvae")
    return sorted(
        systems, key=lambda name: slides.index(name) if name in slides else len(slides)
    )


def _trained(run_of_seed: Workdir, experiment: Experiment, real: np.ndarray) -> Trained:
    model = experiment.model
    latents = getattr(model, "num_latents", 0)
    dims = int(np.prod(model.image_shape))
    if not run_of_seed.results.exists():
        return Trained({}, {}, latents, dims)
    sharpness = sharpness_ratios(run_of_seed.read_samples()["images"], real)
    return Trained(run_of_seed.read_results(), sharpness, latents, dims)


def _as_json(table: Table, config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "seeds": config["seeds"],
        "budget": _budget(config),
        "table": {
            question: {
                name: {"text": cell.text, **cell.values} for name, cell in cells.items()
            }
            for question, cells in table.items()
        },
    }


def _budget(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the training budget of each system."""
    return {
        name: runs.budget(config["systems"][name], "training", "prior_training")
        for name in _in_order(config["systems"])
    }


def _page(directory, config, experiments, dataset: Dataset, table: Table) -> str:
    names = registry.titles()
    titles = [
        names[name] if name == experiment.kind else name
        for name, experiment in experiments.items()
    ]
    rows = [
        [question, *(cells[name].text for name in experiments)]
        for question, cells in table.items()
    ]
    rows.append(["trained for", *_budget(config).values()])
    columns = image_grid.columns_for(dataset.image_shape)
    real = first_examples(dataset.test, 2 * columns)["image"]
    pictures = [Picture(image_grid.image_grid(real, columns=columns), "Real", "real")]
    for name, title in zip(experiments, titles, strict=True):
        run_of_seed = runs.run_of(directory, name, 0)
        if run_of_seed.samples.exists():
            images = run_of_seed.read_samples()["images"][: 2 * columns]
            drawn = image_grid.image_grid(images, columns=columns)
            pictures.append(Picture(drawn, f"Samples of the {title}", title))
    text = (
        f"Means over {config['seeds']} seeds; each cell is measured on the test split."
    )
    return render(
        f"Comparison: {directory.path.resolve().name}",
        results={},
        sections=[
            Section("The systems", text, [], [["", *titles], *rows]),
            Section("Samples", "Drawn with the first seed, not selected.", pictures),
        ],
        config=config,
        command=directory.read_command(),
    )


def _print(table: Table) -> None:
    names = list(next(iter(table.values())))
    shown = rich.table.Table("", *names)
    for question, cells in table.items():
        shown.add_row(question, *(cells[name].text for name in names))
    rich.print(shown)
