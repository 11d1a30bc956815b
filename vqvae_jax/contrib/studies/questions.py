"""Answer the questions of the slides' last table from measurements.

That table compares GAN, VAE, PixelCNN and VQ-VAE.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from vqvae_jax.models.base import Traits

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
