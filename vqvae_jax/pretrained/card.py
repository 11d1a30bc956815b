"""Descriptions of a trained model for people: a summary, and its card.

The card is a README.md with the header that the Hub reads.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vqvae_jax import registry
from vqvae_jax.models import base
from vqvae_jax.pretrained.metadata import Metadata

# Names shown in one line.
_SHOWN = 10
_PAPER = "https://arxiv.org/abs/1711.00937"
_PRIOR_EXAMPLE = """
prior, prior_params = vqvae_jax.restore("hf://USER/NAME", "prior")
drawn = prior.sample(prior_params, key, {arguments})  # codes
"""


def summary(metadata: Metadata) -> dict[str, str]:
    """Return the kind, sizes, parameters, codes and bits of a model, line by line."""
    model = metadata.model
    lines = {"kind": f"{metadata.kind} ({type(model).__name__})"}
    if hasattr(model, "image_shape"):
        lines["images"] = _sides(model.image_shape)
    if hasattr(model, "summary"):
        lines |= model.summary(metadata.sample_rate)
    elif hasattr(model, "quantizer"):
        lines |= _image_codes(model, metadata.results)
    if getattr(model, "speaker_names", ()):
        lines["speakers"] = _listed(model.speaker_names)
    lines["parameters"] = base.count_of_parameters(metadata.model)
    lines["second stage"] = _second_stage(metadata)
    for stage, second in metadata.models.items():
        lines[f"{stage}: parameters"] = base.count_of_parameters(second)
        if getattr(second, "class_names", ()):
            lines[f"{stage}: classes"] = _listed(second.class_names)
    for end, known in (("", ""), ("_given_class", " given the class")):
        bits = metadata.results.get(f"prior_bits_per_code{end}")
        if bits is not None:
            lines[f"prior: bits per code{known}, test split"] = f"{bits:.3g}"
    return lines


def of(metadata: Metadata, folder: Path) -> str:
    """Return the card of the model in `folder`."""
    data = (metadata.config or {}).get("data", {})
    # A folder's data have no name.
    name = data.get("name", "") if data.get("source") == "tfds" else ""
    title = f"{type(metadata.model).__name__}{f' of {name}' if name else ''}"
    sections = [
        _header(metadata),
        f"# {title}",
        f"A model of [*Neural Discrete Representation Learning*]({_PAPER}), trained "
        "with `vqvae_jax`. `model.safetensors` holds all arrays, and their metadata as "
        "JSON.",
        _table(("", ""), summary(metadata)),
        "## Use",
        _use(metadata),
    ]
    if metadata.results:
        figures = {k: f"{v:.5g}" for k, v in metadata.results.items()}
        sections += ["## Results", _table(("test split by default", ""), figures)]
    if metadata.config is not None:
        text = json.dumps(metadata.config, indent=2)
        sections += ["## Config", f"```json\n{text}\n```"]
    sections += [
        "## Publish",
        "With your own account, after `hf auth login`:",
        f"```bash\nhf upload USER/NAME {folder}\n```",
    ]
    return "\n\n".join(sections) + "\n"


def _header(metadata: Metadata) -> str:
    tags = ["vq-vae", "jax", "flax", metadata.kind]
    lines = ["library_name: vqvae_jax", "tags:", *(f"- {tag}" for tag in tags)]
    # Which licence the data permit is for the person who publishes to say.
    lines.append("license: unknown")
    return "\n".join(["---", *lines, "---"])


def _use(metadata: Metadata) -> str:
    shape = ", ".join(map(str, getattr(metadata.model, "image_shape", ())))
    lines = [
        "import vqvae_jax",
        "",
        'model, params = vqvae_jax.restore("hf://USER/NAME")  # or this folder',
    ]
    example = registry.MODELS[metadata.kind].example
    if example:
        lines.append(example.format(shape=shape))
    code = "\n".join(lines)
    if "prior" in metadata.models:
        labels = metadata.models["prior"].num_classes > 0
        code += _PRIOR_EXAMPLE.format(
            arguments="labels=labels" if labels else "num_samples=16"
        )
    return f"```python\n{code.strip()}\n```"


def _table(head: tuple[str, str], rows: dict[str, str]) -> str:
    lines = [f"| {head[0]} | {head[1]} |", "|---|---|"]
    return "\n".join([*lines, *(f"| {key} | {value} |" for key, value in rows.items())])


def _image_codes(model: Any, results: Mapping[str, float]) -> dict[str, str]:
    pixels = 8 * model.num_dims
    bits = model.code_bits
    lines = {
        "codes of an image": f"{_sides(model.grid)} of K = {model.num_codes}",
        "likelihood": model.likelihood,
        "bits of an image": f"{pixels:,}",
        "bits of its codes": f"{bits:,.0f}, {pixels / bits:.3g} times fewer",
    }
    for end, known in (("", ""), ("_given_class", " and the class")):
        learned = results.get(f"code_bits_learned_prior{end}", 0)
        if learned > 0:
            lines[f"... with the learned prior{known}"] = (
                f"{learned:,.0f}, {pixels / learned:.3g} times fewer"
            )
    return lines


def _second_stage(metadata: Metadata) -> str:
    if metadata.second_stage is None:
        return "none"
    name = metadata.second_stage
    return name if metadata.models else f"{name}, not trained yet"


def _sides(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _listed(names: Sequence[str]) -> str:
    more = f", ... ({len(names)})" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
