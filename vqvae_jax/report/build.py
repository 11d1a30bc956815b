"""Build the report of a run from the files of its workdir."""

from collections.abc import Sequence

import numpy as np

from vqvae_jax import registry
from vqvae_jax.data.dataset import Dataset
from vqvae_jax.data.source import evenly_spaced
from vqvae_jax.experiment import Experiment
from vqvae_jax.report import figures, image_grid
from vqvae_jax.report.codebook import codebook_sections
from vqvae_jax.report.page import Picture, Section, render
from vqvae_jax.report.paper import paper_section
from vqvae_jax.report.readable import readable
from vqvae_jax.report.reconstructions import reconstruction_sections
from vqvae_jax.training.logging import read_entries, run_name
from vqvae_jax.workdir import Workdir

# A page with a thousand classes would take minutes to load. `samples/` contains all.
_CLASSES = 32


def build_page(
    workdir: Workdir,
    experiment: Experiment,
    dataset: Dataset,
    *,
    sections: Sequence[Section],
) -> str:
    """Return the report of a model of images as one HTML page.

    Args:
      workdir: contains the results of all earlier stages.
      experiment: experiment of the run.
      dataset: data of the run, whose test images are shown.
      sections: sections about samples, placed between reconstructions and codebook.

    Raises:
      UserError: the results of an earlier stage are missing.
    """
    config, results = workdir.read_config(), workdir.read_results()
    model, params = workdir.restore()
    return render(
        f"{experiment.spec.title}: {run_name(workdir.path)}",
        results=results,
        sections=[
            *paper_section(config, results),
            *(
                reconstruction_sections(model, params, dataset)
                if model.traits.encodes
                else []
            ),
            *sections,
            *(
                codebook_sections(workdir, model, params)
                if experiment.second_stage
                else []
            ),
            *learning_curves(workdir),
        ],
        config=config,
        summary=_summary(experiment),
        command=workdir.read_command(),
    )


def _summary(experiment: Experiment) -> str:
    """Describe the data and the codes in one sentence."""
    model, data = experiment.model, experiment.data
    name = data.name if data.source == "tfds" else "a folder"
    images = f"Images of {name}, {_sizes(model.image_shape)}"
    if model.traits.latent != "codes":
        return f"{images}."
    return f"{images}, as {_sizes(model.grid)} codes of K = {model.num_codes}."


def _sizes(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))


def samples_section(workdir: Workdir, text: str) -> Section:
    """Return the section of samples, with an image grid for each class."""
    samples = workdir.read_samples()
    images, labels = samples["images"], samples["labels"]
    class_names = samples["class_names"]
    # Two rows of half the columns, so that images are large enough on a phone.
    columns = max(1, image_grid.columns_for(images.shape[1:]) // 2)
    cards = []
    present = np.unique(labels)
    for label in present[evenly_spaced(len(present), _CLASSES)]:
        drawn = images[labels == label][: 2 * columns]
        name = str(class_names[label]) if len(class_names) else ""
        png = image_grid.image_grid(drawn, columns=columns)
        cards.append(Picture(png, f"Samples {name}".strip(), name))
    return Section("Samples", text, cards=cards)


def learning_curves(workdir: Workdir) -> list[Section]:
    """Return a section of learning curves for each stage that trains."""
    entries = read_entries(workdir.metrics)
    sections = []
    for stage, name in registry.titles().items():
        # Codebook and commitment loss have equal values, so plot them once.
        terms: dict[bytes, list[str]] = {}
        for term, plot in figures.learning_curves(entries, stage).items():
            terms.setdefault(figures.svg(plot), []).append(readable(term))
        cards = [
            Picture(plot, f"{', '.join(same)} of the {name}, by step", ", ".join(same))
            for plot, same in terms.items()
        ]
        if cards:
            sections.append(Section(f"Learning curves of the {name}", "", cards=cards))
    return sections
