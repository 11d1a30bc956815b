"""Compare GAN, VAE, PixelCNN and VQ-VAE under one budget, as the slides' last table.

A question of the table is answered from measurements or is "not defined". Sharpness is
the gradient magnitude and the power at high frequencies, relative to those of real
images of the same size. A ratio below 1 means blur. Noise and checkerboards count as
sharp, so a ratio near 1 indicates quality only for samples that also look right.

workdir/results.json         the table, with the numbers behind each cell
workdir/report.html          the table, with samples
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from vqvae_jax import registry
from vqvae_jax.contrib.studies import runs
from vqvae_jax.data.dataset import Dataset, open_dataset
from vqvae_jax.data.source import first_examples
from vqvae_jax.experiment import Experiment
from vqvae_jax.models.base import Traits
from vqvae_jax.report import image_grid
from vqvae_jax.report.page import Picture, Section, render
from vqvae_jax.runtime.errors import require
from vqvae_jax.workdir import Workdir

_SECTIONS = ("seeds", "systems")
_IMAGES = 2000
# In cycles per pixel: half of the Nyquist frequency, 1/2.
_CUTOFF = 0.25
NOT_DEFINED = "not defined"


class Trained(NamedTuple):
    """One system, trained with one seed.

    results: results of the run; `{}` if training diverged or the codes collapsed.
    sharpness: sharpness ratios of its samples to real images, by measure.
    latents: number of values or codes in z; 0 without z.
    num_dims: number of values in an image.
    """

    results: Mapping[str, float]
    sharpness: Mapping[str, float]
    latents: int
    num_dims: int


class Cell(NamedTuple):
    """An answer as text, and the values of each seed behind it, by name."""

    text: str
    values: Mapping[str, Sequence[float]] = {}


Table = dict[str, dict[str, Cell]]


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
    runs.publish(directory, page, [["", *experiments], *_rows(table)])


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
    rows = [*_rows(table), ["trained for", *_budget(config).values()]]
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


def _rows(table: Table) -> list[list[str]]:
    return [
        [question, *(cell.text for cell in cells.values())]
        for question, cells in table.items()
    ]


def compare(
    systems: Mapping[str, Sequence[Trained]], traits: Mapping[str, Traits]
) -> Table:
    """Answer each question for each system, from all of its seeds.

    Args:
      systems: seeds of each system, by name.
      traits: traits of each system's model, by name.

    Returns question -> name -> answer, which is `NOT_DEFINED` without a measurement.
    """
    questions = {
        "exact likelihood p(x)": _likelihood,
        "latent variable z": _latent,
        "z inferred from x": _inferred,
        "z discrete": _discrete,
        "stable training": _stable,
        "sharp images": _sharp,
        "samples per second": _speed,
    }
    return {
        question: {name: answer(traits[name], seeds) for name, seeds in systems.items()}
        for question, answer in questions.items()
    }


def _likelihood(traits: Traits, seeds: Sequence[Trained]) -> Cell:
    if traits.likelihood == "undefined":
        return Cell(NOT_DEFINED)
    answer = {"exact": "yes, exactly", "bound": "no, a bound:"}[traits.likelihood]
    return _measured(seeds, answer, dict([traits.figure]))


def _latent(traits: Traits, seeds: Sequence[Trained]) -> Cell:
    latents = seeds[0].latents
    text = f"yes, {latents} {traits.latent}" if latents else "no"
    return Cell(text, {"latents": [latents]})


def _inferred(traits: Traits, seeds: Sequence[Trained]) -> Cell:
    if not traits.encodes:
        return Cell(NOT_DEFINED if traits.latent is None else "no")
    measures = {"test_psnr_db": "dB PSNR"}
    if any("test_ssim" in seed.results for seed in seeds):
        measures["test_ssim"] = "SSIM"
    return _measured(seeds, "yes, reconstructs at", measures)


def _discrete(traits: Traits, seeds: Sequence[Trained]) -> Cell:
    if traits.latent is None:
        return Cell(NOT_DEFINED)
    if not traits.encodes:
        return Cell("no; bits of z not defined")
    if traits.latent == "numbers":
        bits = [
            seed.results["test_kl"] * seed.num_dims / math.log(2)
            for seed in seeds
            if "test_kl" in seed.results
        ]
        return _cell("no; KL", {"kl_bits": (bits, "bits")})
    return _measured(seeds, "yes,", {"code_bits": "bits"})


def _stable(traits: Traits, seeds: Sequence[Trained]) -> Cell:
    finished = [seed for seed in seeds if seed.results]
    diverged = len(seeds) - len(finished)
    text = f"{diverged} of {len(seeds)} seeds diverged"
    if diverged and traits.can_collapse:
        text += " or collapsed"
    name, unit = traits.figure
    finals = [seed.results[name] for seed in finished if name in seed.results]
    if len(finals) < 2:
        return Cell(text, {"diverged": [diverged]})
    spread = statistics.stdev(finals)
    values = {"diverged": [diverged], name: finals, "standard_deviation": [spread]}
    return Cell(f"{text}; final {name[5:]} spreads by {_number(spread)} {unit}", values)


def _sharp(traits: Traits, seeds: Sequence[Trained]) -> Cell:
    del traits
    trained = [seed.sharpness for seed in seeds if seed.sharpness]
    names = trained[0] if trained else ()
    found = {
        name: ([ratios[name] for ratios in trained], name.replace("_", " "))
        for name in names
    }
    return _cell("of real images:", found)


def _speed(traits: Traits, seeds: Sequence[Trained]) -> Cell:
    del traits
    return _measured(seeds, "", {"samples_per_second": ""})


def _measured(seeds: Sequence[Trained], text: str, measures: Mapping[str, str]) -> Cell:
    """Answer with the results in `measures`, which maps their names to units."""
    found = {
        name: ([s.results[name] for s in seeds if name in s.results], unit)
        for name, unit in measures.items()
    }
    return _cell(text, found)


def _cell(text: str, found: Mapping[str, tuple[Sequence[float], str]]) -> Cell:
    """Append the mean over seeds of each measure to the text."""
    found = {key: pair for key, pair in found.items() if pair[0]}
    if not found:
        return Cell(NOT_DEFINED)
    means = [
        f"{_number(statistics.fmean(values))} {unit}".strip()
        for values, unit in found.values()
    ]
    words = " ".join(filter(None, [text, ", ".join(means)]))
    return Cell(words, {key: list(values) for key, (values, _) in found.items()})


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def gradient_magnitude(
    images: UInt8[np.ndarray, "N H W C"],
) -> Float[np.ndarray, " N"]:
    """Return the mean length of an image's gradient, in grey levels per pixel.

    The gradient of a channel at (i, j) is (x[i+1, j] - x[i, j], x[i, j+1] - x[i, j]);
    its length is averaged over channels and over the (H - 1) (W - 1) pixels at which
    both differences exist.

    Raises:
      UserError: a side is below 2.
    """
    require(
        min(images.shape[1:3]) >= 2,
        f"a gradient needs images of at least 2x2, got {images.shape}",
    )

    def lengths(x):
        corner = x[:, :-1, :-1]
        return np.hypot(x[:, 1:, :-1] - corner, x[:, :-1, 1:] - corner)

    return _image_means(lengths, images)


def high_frequency_power(
    images: UInt8[np.ndarray, "N H W C"],
) -> Float[np.ndarray, " N"]:
    """Return the power above half of the Nyquist frequency, in squared grey levels.

    A channel's variance over its pixels is the sum of |X[k, l]|² / (H W) over all
    (k, l) except (0, 0), where X is the orthonormal DCT-II. This function returns the
    part of that sum with frequencies sqrt((k / 2H)² + (l / 2W)²) above 1/4 cycles per
    pixel, averaged over channels. A wave a cos(2 pi f x) contributes a² / 2 if f is
    above that cutoff and nothing otherwise.

    A DFT would count the jump between opposite borders as sharpness: for 32x32
    photographs blurred by a Gaussian of one pixel it reports 13 % of the original
    power, the DCT 2 %.
    """
    height, width = images.shape[1:3]
    rows, columns = _dct(height), _dct(width)
    frequency = np.hypot(
        np.arange(height)[:, None] / (2 * height),
        np.arange(width)[None] / (2 * width),
    )
    is_high = (frequency > _CUTOFF)[None, :, :, None]

    def power(x):
        x = np.moveaxis(x, 3, 1)
        spectrum = np.moveaxis(rows @ x @ columns.T, 1, 3)
        # The mean over all H W coefficients is the sum / (H W).
        return np.square(spectrum) * is_high

    return _image_means(power, images)


def sharpness_ratios(
    samples: UInt8[np.ndarray, "N H W C"], real: UInt8[np.ndarray, "M h w c"]
) -> dict[str, float]:
    """Return the mean of each measure over samples, relative to real images.

    At 1 samples are as sharp as the real images; below 1 they are blurrier.

    Raises:
      UserError: samples and real images differ in size, or the real images are flat.
    """
    require(
        samples.shape[1:] == real.shape[1:],
        f"samples {samples.shape[1:]} and real images {real.shape[1:]} must have the "
        "same size",
    )
    measures = {
        "gradient_magnitude_ratio": gradient_magnitude,
        "high_frequency_power_ratio": high_frequency_power,
    }
    ratios = {}
    for name, measure in measures.items():
        reference = float(measure(real).mean())
        require(
            reference > 0,
            f"{name}: the real images are all flat, so there is no reference sharpness",
        )
        ratios[name] = float(measure(samples).mean()) / reference
    return ratios


def _dct(size: int) -> Float[np.ndarray, "K N"]:
    """Return the orthonormal DCT-II as a matrix."""
    k, n = np.arange(size)[:, None], np.arange(size)[None]
    matrix = np.cos(np.pi * k * (n + 0.5) / size) * np.sqrt(2 / size)
    matrix[0] /= np.sqrt(2)
    return matrix


def _image_means(function, images, *, chunk_size: int = 256):
    """Average `function(images)` over each image, in chunks to save memory."""
    chunks = (
        function(images[start : start + chunk_size].astype(np.float64))
        for start in range(0, len(images), chunk_size)
    )
    return np.concatenate([chunk.mean(axis=(1, 2, 3)) for chunk in chunks])
