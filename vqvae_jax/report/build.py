"""The report of a run, from what its stages left in the workdir."""

from collections.abc import Callable

import numpy as np

from vqvae_jax.data.dataset import Dataset
from vqvae_jax.data.source import spread
from vqvae_jax.experiment import Experiment
from vqvae_jax.report import figures, image_grid
from vqvae_jax.report.codebook import codebook_section
from vqvae_jax.report.page import Picture, Section, render
from vqvae_jax.report.paper import paper_section
from vqvae_jax.report.readable import readable
from vqvae_jax.report.reconstructions import sections_of_codes
from vqvae_jax.training.logging import read_entries
from vqvae_jax.training.run_name import run_name
from vqvae_jax.workdir import Workdir, restore

# A page of a thousand classes would take minutes to load; `samples/` has them all.
_CLASSES = 32
NAMES = {
    "vqvae": "VQ-VAE",
    "vae": "VAE",
    "vimco": "VIMCO",
    "pixelcnn": "PixelCNN",
    "gan": "GAN",
    "speech": "VQ-VAE of speech",
    "prior": "prior",
    "sequence_prior": "prior of sequences",
    "hierarchy": "second VQ-VAE",
    "hierarchy_vae": "VAE with the second VQ-VAE's networks",
    "hierarchy_without_latents": "PixelCNN without latents",
    "video": "video model",
    "video_frames_alone": "same model of frames alone",
}


# What a VQ-VAE's second stage shows.
Sections = Callable[[Workdir, Experiment, Dataset], list[Section]]


def build(
    workdir: Workdir,
    experiment: Experiment,
    dataset: Dataset,
    *,
    of_second: Sections | None = None,
) -> str:
    """Return the report as one HTML page, with the sections of a second stage.

    Raises:
      UserError: an earlier stage has not left its results.
    """
    of_second = of_second or _sections_of_images
    config, results = workdir.read_json(workdir.config), workdir.read_results()
    model, params = restore(workdir.path)
    sections = [
        *paper_section(config, results),
        # A PixelCNN and a GAN have no code to reconstruct from.
        *(
            sections_of_codes(model, params, dataset)
            if hasattr(model, "reconstruct")
            else []
        ),
        *of_second(workdir, experiment, dataset),
        *([codebook_section(workdir, params)] if experiment.second else []),
        *learning_curves(workdir),
    ]
    return render(
        f"{NAMES[experiment.kind]}: {run_name(workdir.path)}",
        results=results,
        sections=sections,
        config=config,
        summary=_summary(experiment),
        command=workdir.read_command(),
    )


def _summary(experiment: Experiment) -> str:
    """Say in a sentence what the model is of."""
    model, data = experiment.model, experiment.data
    name = data.name if data.source == "tfds" else "a folder"
    images = f"Images of {name}, {_sizes(model.image_shape)}"
    if not hasattr(model, "num_codes"):
        return f"{images}."
    return f"{images}, as {_sizes(model.grid)} codes of K = {model.num_codes}."


def _sizes(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))


def sections_of_prior(
    workdir: Workdir, experiment: Experiment, dataset: Dataset
) -> list[Section]:
    """Show what was drawn from a prior over codes."""
    del experiment, dataset
    return [_samples(workdir, is_decoded=True)]


def _sections_of_images(
    workdir: Workdir, experiment: Experiment, dataset: Dataset
) -> list[Section]:
    del experiment, dataset
    return [_samples(workdir, is_decoded=False)]


def _samples(workdir: Workdir, *, is_decoded: bool) -> Section:
    text = "Codes drawn from the prior, decoded." if is_decoded else ""
    return samples_section(workdir, text)


def samples_section(workdir: Workdir, text: str) -> Section:
    """Show the samples, a picture of each class, below what they are."""
    samples = workdir.read_samples()
    images, labels = samples["images"], samples["labels"]
    class_names = samples["class_names"]
    # Two rows, which a phone shows large enough.
    columns = max(1, image_grid.columns_for(images.shape[1:]) // 2)
    cards = []
    present = np.unique(labels)
    for label in present[spread(len(present), _CLASSES)]:
        of_class = images[labels == label][: 2 * columns]
        name = str(class_names[label]) if len(class_names) else ""
        png = image_grid.image_grid(of_class, columns=columns)
        cards.append(Picture(png, f"Samples {name}".strip(), name))
    return Section("Samples", text, cards=cards)


def learning_curves(workdir: Workdir) -> list[Section]:
    """Show what each stage that trains has logged."""
    entries = read_entries(workdir.metrics)
    sections = []
    for stage, name in NAMES.items():
        # The codebook's and the commitment loss are one number with two gradients.
        terms: dict[bytes, list[str]] = {}
        for term, plot in figures.learning_curves(entries, stage).items():
            terms.setdefault(figures.svg(plot), []).append(readable(term))
        cards = [
            Picture(plot, f"{', '.join(of)} of the {name}, by step", ", ".join(of))
            for plot, of in terms.items()
        ]
        if cards:
            sections.append(Section(f"Learning curves of the {name}", "", cards=cards))
    return sections
