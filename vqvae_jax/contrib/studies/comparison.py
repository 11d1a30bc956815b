"""The slides' systems under one budget, beside each other.

workdir/results.json         the table, with the numbers behind each cell
workdir/report.html          the same with pictures
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import rich
import rich.table
from rich.markup import escape

from vqvae_jax.contrib.studies import runs
from vqvae_jax.contrib.studies.questions import Table, Trained, compare
from vqvae_jax.contrib.studies.sharpness import sharpness_ratios
from vqvae_jax.data.dataset import Dataset, open_dataset
from vqvae_jax.data.source import first_examples
from vqvae_jax.experiment import Experiment
from vqvae_jax.report import image_grid
from vqvae_jax.report.build import NAMES
from vqvae_jax.report.page import Picture, Section, render
from vqvae_jax.workdir import Workdir

_SECTIONS = ("seeds", "systems")
_IMAGES = 2000


def run(config: Mapping[str, Any], workdir: str, *, command: str = "") -> None:
    """Train every system with every seed, and write what they are beside each other.

    Args:
      config: `seeds`, how many, and `systems`, an experiment's config for each name.
      workdir: made if it does not exist.
      command: what was typed to start it, kept for the report.

    Raises:
      UserError: a config, the data or the workdir cannot be used.
    """
    systems = config["systems"]
    configs = {name: systems[name] for name in _in_order(systems)}
    experiments = runs.checked(config, _SECTIONS, configs)
    place = Workdir(workdir)
    place.require_usable(config)
    place.begin(config, command=command)
    runs.run_all(place, configs, seeds=config["seeds"])
    dataset = open_dataset(next(iter(experiments.values())).data)
    real = first_examples(dataset.test, min(_IMAGES, len(dataset.test)))["image"]
    trained = {
        name: [
            _trained(each, experiment, real)
            for each in runs.runs_of(place, name, config["seeds"])
        ]
        for name, experiment in experiments.items()
    }
    kinds = {name: experiment.kind for name, experiment in experiments.items()}
    table = compare(trained, kinds=kinds)
    place.write_json(place.results, _as_json(table, config))
    page = _page(place, config, experiments, dataset, table)
    place.write_bytes(place.report, page.encode())
    _print(table)
    rich.print(escape(f"report: {place.report}"))


def _in_order(systems: Mapping[str, Any]) -> list[str]:
    """Return the names in the order of the slides: a config sorts its keys."""
    slides = ("gan", "vae", "pixelcnn", "vqvae")
    return sorted(
        systems, key=lambda name: slides.index(name) if name in slides else len(slides)
    )


def _trained(run_of_seed: Workdir, experiment: Experiment, real: np.ndarray) -> Trained:
    model = experiment.model
    latents = {
        "gan": lambda: model.latent_dim,
        "vae": lambda: int(np.prod(model.grid)),
        "vqvae": lambda: model.num_latents,
        "vimco": lambda: model.num_latents,
    }.get(experiment.kind, lambda: 0)()
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
    """Say what each system was trained on."""
    return {
        name: runs.budget(config["systems"][name], "training", "prior_training")
        for name in _in_order(config["systems"])
    }


def _page(place, config, experiments, dataset: Dataset, table: Table) -> str:
    titles = [
        NAMES[name] if name == experiment.kind else name
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
        run_of_seed = runs.run_of(place, name, 0)
        if run_of_seed.samples.exists():
            images = run_of_seed.read_samples()["images"][: 2 * columns]
            drawn = image_grid.image_grid(images, columns=columns)
            pictures.append(Picture(drawn, f"Samples of the {title}", title))
    text = (
        f"Means over {config['seeds']} seeds; each cell is measured on the test split."
    )
    return render(
        f"Comparison: {place.path.resolve().name}",
        results={},
        sections=[
            Section("The systems", text, [], [["", *titles], *rows]),
            Section("Samples", "Of the first seed, not chosen.", pictures),
        ],
        config=config,
        command=place.read_command(),
    )


def _print(table: Table) -> None:
    names = list(next(iter(table.values())))
    shown = rich.table.Table("", *names)
    for question, cells in table.items():
        shown.add_row(question, *(cells[name].text for name in names))
    rich.print(shown)
