"""The card of a model: a README.md with the header that the Hub reads."""

import json
from pathlib import Path

from vqvae_jax import registry
from vqvae_jax.pretrained.metadata import Metadata
from vqvae_jax.pretrained.summary import summary

_PAPER = "https://arxiv.org/abs/1711.00937"
_PRIOR_EXAMPLE = """
prior, prior_params = vqvae_jax.restore("hf://USER/NAME", "prior")
drawn = prior.sample(prior_params, key, {arguments})  # codes
"""


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
