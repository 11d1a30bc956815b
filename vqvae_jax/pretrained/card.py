"""The card of a model: a README.md for people, with the header that the Hub reads."""

import json
from pathlib import Path

from vqvae_jax.pretrained.metadata import About
from vqvae_jax.pretrained.summary import facts

_PAPER = "https://arxiv.org/abs/1711.00937"
_USES = {
    "vqvae": "codes = model.encode(params, images)  # uint8 [B, {shape}]\n"
    "images = model.decode(params, codes)",
    "speech": "codes = model.encode(params, audio)  # int16 [B, T]\n"
    "audio = model.decode(params, key, codes, speakers=speakers)",
}
_USES_PRIOR = """
prior, prior_params = vqvae_jax.restore_prior("hf://USER/NAME")
drawn = prior.sample(prior_params, key, {told})  # codes
"""


def of(about: About, folder: Path) -> str:
    """Return the card of a model that lies in `folder`."""
    data = (about.config or {}).get("data", {})
    # Of a folder, the name is what the config happened to have.
    name = data.get("name", "") if data.get("source") == "tfds" else ""
    title = f"{type(about.model).__name__}{f' of {name}' if name else ''}"
    sections = [
        _header(about),
        f"# {title}",
        f"A model of [*Neural Discrete Representation Learning*]({_PAPER}) and what "
        "it is compared with there, trained with `vqvae_jax`. Everything is in "
        "`model.safetensors`: arrays, and JSON that says what they are.",
        _table(("", ""), facts(about)),
        "## Use",
        _use(about),
    ]
    if about.results:
        figures = {k: f"{v:.5g}" for k, v in about.results.items()}
        sections += ["## Results", _table(("test split if not said", ""), figures)]
    if about.config is not None:
        text = json.dumps(about.config, indent=2)
        sections += ["## Config", f"```json\n{text}\n```"]
    sections += [
        "## Publish",
        "With your own account, after `hf auth login`:",
        f"```bash\nhf upload USER/NAME {folder}\n```",
    ]
    return "\n\n".join(sections) + "\n"


def _header(about: About) -> str:
    tags = ["vq-vae", "jax", "flax", about.kind]
    lines = ["library_name: vqvae_jax", "tags:", *(f"- {tag}" for tag in tags)]
    return "\n".join(["---", *lines, "---"])


def _use(about: About) -> str:
    shape = ", ".join(map(str, getattr(about.model, "image_shape", ())))
    lines = [
        "import vqvae_jax",
        "",
        'model, params = vqvae_jax.restore("hf://USER/NAME")  # or this folder',
    ]
    if about.kind in _USES:
        lines.append(_USES[about.kind].format(shape=shape))
    code = "\n".join(lines)
    if "prior" in about.models:
        labels = about.models["prior"].num_classes > 0
        code += _USES_PRIOR.format(told="labels=labels" if labels else "num_samples=16")
    return f"```python\n{code.strip()}\n```"


def _table(head: tuple[str, str], rows: dict[str, str]) -> str:
    lines = [f"| {head[0]} | {head[1]} |", "|---|---|"]
    return "\n".join([*lines, *(f"| {key} | {value} |" for key, value in rows.items())])
