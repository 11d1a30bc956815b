"""The slides' last table, measured: GAN, VAE, PixelCNN and VQ-VAE on six questions."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

NOT_DEFINED = "not defined"


class Trained(NamedTuple):
    """One system, trained with one seed.

    results: what its run measured, `{}` if training diverged or its codes collapsed.
    sharpness: ratios of its samples to real images, by measure.
    latents: numbers or codes in z, 0 if there is no z.
    num_dims: values of an image.
    """

    results: Mapping[str, float]
    sharpness: Mapping[str, float]
    latents: int
    num_dims: int


class Cell(NamedTuple):
    """An answer: in words, and the numbers it rests on, by seed."""

    text: str
    values: Mapping[str, Sequence[float]] = {}


Table = dict[str, dict[str, Cell]]


def compare(
    systems: Mapping[str, Sequence[Trained]], *, kinds: Mapping[str, str] | None = None
) -> Table:
    """Answer each question for each system from all of its seeds.

    Args:
      systems: seeds of each system, by its name.
      kinds: of its model, by its name; None where that is its name.

    Returns question -> name -> answer. What a system has no measurement for says so.
    """
    kinds = kinds or {name: name for name in systems}
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
        question: {name: answer(kinds[name], seeds) for name, seeds in systems.items()}
        for question, answer in questions.items()
    }


def _likelihood(kind: str, seeds: Sequence[Trained]) -> Cell:
    name, what = {
        "pixelcnn": ("test_bits_per_dim", "yes, exactly"),
        "vae": ("test_bits_per_dim", "no, a bound:"),
        "vimco": ("test_bits_per_dim", "no, a bound:"),
        "vqvae": ("test_bits_per_dim_learned_prior", "no, a bound:"),
    }.get(kind, ("", ""))
    return _measured(seeds, what, {name: "bits/dim"})


def _latent(kind: str, seeds: Sequence[Trained]) -> Cell:
    latents = seeds[0].latents
    unit = "codes" if kind in ("vqvae", "vimco") else "numbers"
    text = f"yes, {latents} {unit}" if latents else "no"
    return Cell(text, {"latents": [latents]})


def _inferred(kind: str, seeds: Sequence[Trained]) -> Cell:
    if kind in ("gan", "pixelcnn"):
        return Cell(NOT_DEFINED if kind == "pixelcnn" else "no")
    measures = {"test_psnr_db": "dB PSNR"}
    if any("test_ssim" in seed.results for seed in seeds):
        measures["test_ssim"] = "SSIM"
    return _measured(seeds, "yes, reconstructs at", measures)


def _discrete(kind: str, seeds: Sequence[Trained]) -> Cell:
    if kind == "pixelcnn":
        return Cell(NOT_DEFINED)
    if kind == "gan":
        return Cell("no; bits of z not defined")
    if kind == "vae":
        bits = [
            seed.results["test_kl"] * seed.num_dims / math.log(2)
            for seed in seeds
            if "test_kl" in seed.results
        ]
        return _cell("no; KL", {"kl_bits": (bits, "bits")})
    return _measured(seeds, "yes,", {"code_bits": "bits"})


def _stable(kind: str, seeds: Sequence[Trained]) -> Cell:
    finished = [seed for seed in seeds if seed.results]
    diverged = len(seeds) - len(finished)
    text = f"{diverged} of {len(seeds)} seeds diverged"
    if diverged and kind == "vqvae":
        text += " or collapsed"
    name, unit = {
        "gan": ("test_discriminator", "nats"),
        "vqvae": ("test_bits_per_dim_learned_prior", "bits/dim"),
    }.get(kind, ("test_bits_per_dim", "bits/dim"))
    finals = [seed.results[name] for seed in finished if name in seed.results]
    if len(finals) < 2:
        return Cell(text, {"diverged": [diverged]})
    spread = statistics.stdev(finals)
    values = {"diverged": [diverged], name: finals, "standard_deviation": [spread]}
    return Cell(f"{text}; final {name[5:]} spreads by {_number(spread)} {unit}", values)


def _sharp(kind: str, seeds: Sequence[Trained]) -> Cell:
    del kind
    trained = [seed.sharpness for seed in seeds if seed.sharpness]
    names = trained[0] if trained else ()
    found = {
        name: ([ratios[name] for ratios in trained], name.replace("_", " "))
        for name in names
    }
    return _cell("of real images:", found)


def _speed(kind: str, seeds: Sequence[Trained]) -> Cell:
    del kind
    return _measured(seeds, "", {"samples_per_second": ""})


def _measured(seeds: Sequence[Trained], text: str, measures: Mapping[str, str]) -> Cell:
    """Answer with results, by name with their units, of the seeds that have them."""
    found = {
        name: ([s.results[name] for s in seeds if name in s.results], unit)
        for name, unit in measures.items()
    }
    return _cell(text, found)


def _cell(text: str, found: Mapping[str, tuple[Sequence[float], str]]) -> Cell:
    """Put the mean over seeds of each measure behind the text."""
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
