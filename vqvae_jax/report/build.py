"""The report of a run, from what its stages left in the workdir."""

from collections.abc import Callable

import jax
import numpy as np

from vqvae_jax.data.dataset import Dataset
from vqvae_jax.data.source import read_many, stack
from vqvae_jax.evaluation.usage import count_codes
from vqvae_jax.experiment import Experiment
from vqvae_jax.report import figures
from vqvae_jax.report.page import Picture, Section, render
from vqvae_jax.training.logs import read_entries
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
    sections = [
        # A PixelCNN and a GAN have no code to reconstruct from.
        *([_reconstructions(workdir, dataset)] if _reconstructs(experiment) else []),
        *of_second(workdir, experiment, dataset),
        *([codebook_section(workdir, experiment)] if experiment.second else []),
        *learning_curves(workdir),
    ]
    return render(
        f"{NAMES[experiment.kind]}: {workdir.path.resolve().name}",
        results=workdir.read_json(workdir.results),
        sections=sections,
        config=workdir.read_json(workdir.config),
    )


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


def _reconstructions(workdir: Workdir, dataset: Dataset) -> Section:
    model, params = restore(workdir.path)
    columns = figures.columns_for(dataset.image_shape)
    # A folder is sorted by class: its first images would all be of one.
    chosen = spread(len(dataset.test), 2 * columns)
    originals = stack(read_many(dataset.test, chosen))["image"]
    decoded = np.asarray(jax.jit(model.reconstruct)(params, originals))
    picture = Picture(
        figures.reconstructions(originals, decoded, columns=columns),
        "Rows of test images, each above the row of its reconstructions",
    )
    text = "Test images; below each row, what the decoder makes of its codes."
    return Section("Reconstructions", text, [picture])


def _reconstructs(experiment: Experiment) -> bool:
    return hasattr(experiment.model, "reconstruct")


def _samples(workdir: Workdir, *, is_decoded: bool) -> Section:
    text = "Codes drawn from the prior, decoded." if is_decoded else ""
    return samples_section(workdir, text)


def samples_section(workdir: Workdir, text: str) -> Section:
    """Show the samples, a picture of each class, below what they are."""
    samples = workdir.read_samples()
    images, labels = samples["images"], samples["labels"]
    names = dict(enumerate(samples["class_names"].tolist()))
    columns = figures.columns_for(images.shape[1:])
    pictures = []
    present = np.unique(labels)
    for label in present[spread(len(present), _CLASSES)]:
        row = images[labels == label][:columns]
        name = names.get(int(label), "")
        png = figures.image_grid(row, columns=columns)
        pictures.append(Picture(png, f"Samples {name}".strip(), name))
    return Section("Samples", text, pictures)


def spread(count: int, n: int) -> list[int]:
    """Return `n` of 0 ... count - 1, evenly spaced from first to last; all if fewer."""
    return np.linspace(0, count - 1, min(n, count)).round().astype(int).tolist()


def codebook_section(workdir: Workdir, experiment: Experiment) -> Section:
    """Show how often each code is used."""
    counts = count_codes(workdir.codes("test"), num_codes=experiment.model.num_codes)
    picture = Picture(figures.codebook_usage(counts), "Code usage, most used first")
    text = "How often each code occurs in the test split. The dotted line is even use."
    return Section("Codebook usage", text, [picture])


def learning_curves(workdir: Workdir) -> list[Section]:
    """Show what each stage that trains has logged."""
    entries = read_entries(workdir.metrics)
    return [
        Section(
            f"Learning curves of the {name}",
            "",
            [
                Picture(
                    figures.learning_curves(entries, stage),
                    f"Each logged term of the {name} against the step",
                )
            ],
        )
        for stage, name in NAMES.items()
        if any(entry["stage"] == stage for entry in entries)
    ]
