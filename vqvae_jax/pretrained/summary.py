"""What a trained model is, in words and numbers that a person reads."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from vqvae_jax.models.vqvae import VQVAE
from vqvae_jax.pretrained.file import abstract_params
from vqvae_jax.pretrained.metadata import About
from vqvae_jax.tasks.speech.model import SpeechVQVAE

# Names that fit into a line.
_SHOWN = 10


def facts(about: About) -> dict[str, str]:
    """Return what a model is, line by line: kind, sizes, parameters, codes, bits."""
    model = about.model
    lines = {"kind": f"{about.kind} ({type(model).__name__})"}
    if hasattr(model, "image_shape"):
        lines["images"] = _sides(model.image_shape)
    if isinstance(model, VQVAE):
        lines |= _of_codes(model, about.results)
    if isinstance(model, SpeechVQVAE):
        lines |= _of_speech(model, about.sample_rate)
    lines["parameters"] = _parameters(about, about.kind)
    lines["followed by"] = _followed_by(about)
    for stage, second in about.models.items():
        lines[f"{stage}: parameters"] = _parameters(about, stage)
        if getattr(second, "class_names", ()):
            lines[f"{stage}: classes"] = _listed(second.class_names)
    if "prior_bits_per_code" in about.results:
        bits = about.results["prior_bits_per_code"]
        lines["prior: bits a code, test split"] = f"{bits:.3g}"
    return lines


def _of_codes(model: VQVAE, results: Mapping[str, float]) -> dict[str, str]:
    pixels = 8 * model.num_dims
    bits = model.num_latents * math.log2(model.num_codes)
    lines = {
        "codes of an image": f"{_sides(model.grid)} of K = {model.num_codes}",
        "likelihood": model.likelihood,
        "bits of an image": f"{pixels:,}",
        "bits of its codes": f"{bits:,.0f}, {pixels / bits:.3g} times fewer",
    }
    if results.get("code_bits_learned_prior", 0) > 0:
        learned = results["code_bits_learned_prior"]
        lines["... with the learned prior"] = (
            f"{learned:,.0f}, {pixels / learned:.3g} times fewer"
        )
    return lines


def _of_speech(model: SpeechVQVAE, rate: int | None) -> dict[str, str]:
    lines = {
        "codes": f"one of K = {model.num_codes} for {model.downsampling} samples",
        "speakers": _listed(model.speaker_names),
    }
    if rate is not None:
        bits = rate / model.downsampling * math.log2(model.num_codes)
        lines["samples a second"] = f"{rate:,}"
        lines["bits of a second's codes"] = f"{bits:,.0f}"
    return lines


def _followed_by(about: About) -> str:
    if about.second is None:
        return "nothing"
    return about.second if about.models else f"{about.second}, not trained yet"


def _parameters(about: About, stage: str) -> str:
    """Return the whole number, and those of the parts where params have some."""
    tree = abstract_params(about, stage)
    whole = f"{_size(tree):,}"
    if not hasattr(tree, "_asdict"):
        return whole
    parts = {
        name: part.embeddings if name == "codebook" else part
        for name, part in tree._asdict().items()
        if part is not None
    }
    whole = f"{sum(map(_size, parts.values())):,}"
    return f"{whole} ({', '.join(f'{k} {_size(v):,}' for k, v in parts.items())})"


def _size(tree: Any) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def _sides(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _listed(names: Sequence[str]) -> str:
    more = f", ... ({len(names)})" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
