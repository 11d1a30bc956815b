"""A run's results next to the paper's, and the settings that differ."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from vqvae_jax.options import flatten
from vqvae_jax.report.page import Section
from vqvae_jax.report.readable import Results, formatted, readable

_CIFAR = {
    "model.encoder.num_downsamples": 2,
    "model.encoder.channels": 256,
    "model.encoder.residual_blocks": 2,
    "training.learning_rate": 2e-4,
    "training.steps": 250_000,
    "training.batch_size": 128,
}
_WITH_CODES = {**_CIFAR, "model.quantizer.num_codebooks": 10}
_PHONEMES = {
    "data.name": "vctk",
    "model.quantizer.num_codes": 128,
    "model.encoder.downsampling": 640,
}


class Reported(NamedTuple):
    """A result that the paper reports.

    section: section of the paper.
    required: settings that a run must have for the result to apply.
    result: name of the result in `results.json`.
    value: the paper's value.
    settings: the paper's settings, which a run may change.
    """

    section: str
    required: Mapping[str, Any]
    result: str
    value: float
    settings: Mapping[str, Any]


# In section 4.1 the VQ-VAE's only prior is the uniform one it is trained with.
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
        {**_CIFAR, "model.num_codebooks": 10, "model.num_samples": 50},
    ),
    Reported(
        "4.2",
        {"model.kind": "vqvae", "data.image_size": 128},
        "compression_ratio",
        42.6,
        {"data.name": "imagenet2012", "model.quantizer.num_codes": 512},
    ),
    Reported(
        "4.2",
        {"model.kind": "vqvae", "data.image_size": 84},
        "global_bits_per_frame",
        27,
        {"data.name": "DeepMind Lab", "hierarchy.quantizer.num_codebooks": 3},
    ),
    Reported("4.3", {"model.kind": "speech"}, "phoneme_accuracy", 0.493, _PHONEMES),
    Reported(
        "4.3", {"model.kind": "speech"}, "phoneme_chance_accuracy", 0.072, _PHONEMES
    ),
)


def paper_section(config: Mapping[str, Any], results: Results) -> list[Section]:
    """Return the comparison with the paper; empty if the paper has no such result."""
    flat = flatten(config)
    if flat.get("data.source") == "folder":
        # `data.name` is unused then, and may still hold the name of the paper's data.
        flat["data.name"] = "a folder"
    found = [
        reported
        for reported in REPORTED
        if reported.result in results
        and all(flat.get(key) == value for key, value in reported.required.items())
    ]
    if not found:
        return []
    rows = [
        (
            readable(name),
            formatted(name, results[name]),
            formatted(name, value),
            section,
        )
        for section, _, name, value, _ in found
    ]
    # Each difference once, in order.
    differences = dict.fromkeys(
        difference for reported in found for difference in _differences(reported, flat)
    )
    text = (
        "Results that van den Oord et al. (2017) also report. Settings that differ "
        f"from the paper's: {'; '.join(differences) or 'none'}."
    )
    head = ("", "this run", "paper", "section")
    return [Section("Comparison with the paper", text, table=[head, *rows])]


def _differences(reported: Reported, flat: Mapping[str, Any]) -> list[str]:
    """List the settings that differ from the paper's."""
    return [
        f"{key} is {_formatted(flat.get(key))} (paper: {_formatted(value)})"
        for key, value in reported.settings.items()
        if flat.get(key) != value
    ]


def _formatted(value: Any) -> str:
    if value in (None, ""):
        return "none"
    return f"{value:,}" if type(value) is int else str(value)
