"""A run's results beside those of the paper, and what was set differently."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from vqvae_jax.options import flatten
from vqvae_jax.report.page import Section
from vqvae_jax.report.readable import Results, formatted, readable

_CIFAR = {
    "model.stages": 2,
    "model.units": 256,
    "model.residual_blocks": 2,
    "training.learning_rate": 2e-4,
    "training.steps": 250_000,
    "training.batch_size": 128,
}
_WITH_CODES = {**_CIFAR, "model.num_codebooks": 10}
_PHONEMES = {"data.name": "vctk", "model.num_codes": 128, "model.downsampling": 640}


class Reported(NamedTuple):
    """A figure of the paper.

    where: its section.
    of: settings without which a run has nothing to do with it.
    result: a run's name of the figure.
    value: the paper's.
    settings: those that the paper tells; a run may differ.
    """

    where: str
    of: Mapping[str, Any]
    result: str
    value: float
    settings: Mapping[str, Any]


# Section 4.1 has no other prior of the VQ-VAE than the uniform one it is trained with.
REPORTED = (
    Reported(
        "4.1",
        {"model.kind": "vqvae", "data.name": "cifar10"},
        "test_bits_per_dim_uniform_prior",
        4.67,
        _WITH_CODES,
    ),
    Reported(
        "4.1",
        {"model.kind": "vae", "data.name": "cifar10"},
        "test_bits_per_dim",
        4.51,
        _CIFAR,
    ),
    Reported(
        "4.1",
        {"model.kind": "vimco", "data.name": "cifar10"},
        "test_bits_per_dim",
        5.14,
        {**_WITH_CODES, "model.num_samples": 50},
    ),
    Reported(
        "4.2",
        {"model.kind": "vqvae", "data.image_size": 128},
        "compression_ratio",
        42.6,
        {"data.name": "imagenet2012", "model.num_codes": 512},
    ),
    Reported(
        "4.2",
        {"model.kind": "vqvae", "data.image_size": 84},
        "global_bits_per_frame",
        27,
        {"data.name": "DeepMind Lab", "hierarchy.latents": 3},
    ),
    Reported("4.3", {"model.kind": "speech"}, "phoneme_accuracy", 0.493, _PHONEMES),
    Reported(
        "4.3", {"model.kind": "speech"}, "phoneme_chance_accuracy", 0.072, _PHONEMES
    ),
)


def paper_section(config: Mapping[str, Any], results: Results) -> list[Section]:
    """Return a table of what the paper reports too; nothing where that is nothing."""
    flat = flatten(config)
    if flat.get("data.source") == "folder":
        # Whatever name the config was made with is not what is in the folder.
        flat["data.name"] = "a folder"
    found = [
        reported
        for reported in REPORTED
        if reported.result in results
        and all(flat.get(key) == value for key, value in reported.of.items())
    ]
    if not found:
        return []
    rows = [
        (
            readable(name),
            formatted(name, results[name]),
            formatted(name, value),
            where,
        )
        for where, _, name, value, _ in found
    ]
    # Each difference once, in order.
    differences = dict.fromkeys(d for reported in found for d in _set(reported, flat))
    text = (
        "Figures that van den Oord et al. (2017) report too. Set differently here: "
        f"{'; '.join(differences) or 'nothing that the paper tells'}."
    )
    head = ("", "this run", "paper", "section")
    return [Section("Beside the paper", text, table=[head, *rows])]


def _set(reported: Reported, flat: Mapping[str, Any]) -> list[str]:
    """Say what the paper tells of its settings that is not so here."""
    return [
        f"{key} is {_shown(flat.get(key))}, in the paper {_shown(value)}"
        for key, value in reported.settings.items()
        if flat.get(key) != value
    ]


def _shown(value: Any) -> str:
    if value in (None, ""):
        return "none"
    return f"{value:,}" if type(value) is int else str(value)
