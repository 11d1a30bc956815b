"""sample: new images or recordings from a trained model."""

import argparse
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Int

from vqvae_jax.cli.batches import make_files
from vqvae_jax.cli.coders import ImageCoder, SpeechCoder
from vqvae_jax.cli.models import (
    Loaded,
    digest_of,
    label_of,
    load,
    prior_of,
)
from vqvae_jax.cli.outputs import png
from vqvae_jax.pipeline.samples import file_name
from vqvae_jax.runtime.errors import require
from vqvae_jax.sampling import require_drawable

# Key, labels [B] and the number of the batch -> the contents of a file for each.
Draw = Callable[[jax.Array, Int[np.ndarray, " B"], int], list[bytes]]


_NO_SHAPING = {"temperature": 1.0, "top_k": None, "top_p": None}


class _Sampler(NamedTuple):
    """How a model draws.

    draw: a batch.
    class_names: what labels mean; empty where there are none.
    suffix: of the files.
    prior: a hash of the prior's arrays; None where none is drawn from.
    """

    draw: Draw
    class_names: tuple[str, ...]
    suffix: str
    prior: str | None = None


def sample(options: argparse.Namespace) -> None:
    """Draw samples and write each to a file."""
    shaping = {name: getattr(options, name) for name in _NO_SHAPING}
    require_drawable(**shaping)
    loaded = load(options.model, "sample")
    options.batch_size = size = min(options.batch_size, options.num)
    sampler = _sampler(loaded, options, shaping)
    names = sampler.class_names
    labels = np.arange(-(-options.num // size) * size, dtype=np.int32)
    labels %= max(1, len(names))
    if options.label is not None:
        labels[:] = label_of(names, options.label)
    sources = {
        f"{number:05d}{f'_{file_name(names, label)}' if names else ''}": str(label)
        for number, label in enumerate(labels[: options.num].tolist())
    }

    def make(batch, number):
        key = jax.random.fold_in(jax.random.key(options.seed), number)
        of_batch = labels[number * size : (number + 1) * size]
        return sampler.draw(key, of_batch, number)[: len(batch)]

    made_by = {"command": "sample", "kind": loaded.about.kind, "seed": options.seed}
    made_by |= {"batch_size": size, **shaping}
    made_by |= {"model": loaded.digest, "prior": sampler.prior}
    make_files(options, sources, make, made_by=made_by, suffix=sampler.suffix)


def _sampler(
    loaded: Loaded, options: argparse.Namespace, shaping: dict[str, Any]
) -> _Sampler:
    """Return how a model draws.

    Raises:
      UserError: it has no prior, or cannot shape the draw as it is asked to.
    """
    model, params, kind = loaded.model, loaded.params, loaded.about.kind
    if kind == "vqvae":
        return _of_prior(loaded, options, shaping)
    if kind == "speech":
        return _of_speech(loaded, options, shaping)
    shapes = kind == "pixelcnn"
    for name, value in shaping.items():
        require(
            shapes or value == _NO_SHAPING[name],
            f"--{name}: the samples of a {kind} are drawn from no logits",
        )
    told = shaping if shapes else {}
    class_names = getattr(model, "class_names", ())

    def draw(key, labels, number):
        del number
        of_classes = {"labels": labels} if class_names else {}
        images = model.sample(
            params, key, num_samples=len(labels), **of_classes, **told
        )
        return [png(image) for image in np.asarray(images)]

    return _Sampler(draw, class_names, ".png")


def _of_prior(
    loaded: Loaded, options: argparse.Namespace, shaping: dict[str, Any]
) -> _Sampler:
    prior, prior_params = prior_of(loaded, "prior", options.model)
    coder = ImageCoder(loaded, batch_size=options.batch_size)

    def draw(key, labels, number):
        codes = prior.sample(
            prior_params,
            key,
            labels=labels if prior.num_classes else None,
            num_samples=len(labels),
            **shaping,
        )
        return coder.made_of(list(np.asarray(codes)), number)

    return _Sampler(draw, prior.class_names, ".png", digest_of(prior_params))


def _of_speech(
    loaded: Loaded, options: argparse.Namespace, shaping: dict[str, Any]
) -> _Sampler:
    """Return how speech is drawn: codes from the prior, said by the label's speaker."""
    prior, prior_params = prior_of(loaded, "sequence_prior", options.model)
    coder = SpeechCoder(
        loaded, batch_size=options.batch_size, seed=options.seed, shaping=shaping
    )

    def draw(key, labels, number):
        codes = prior.sample(
            prior_params,
            key,
            num_samples=len(labels),
            speakers=labels if prior.conditional else None,
            **shaping,
        )
        return coder.made_of(list(np.asarray(codes)), number, labels)

    names = loaded.model.speaker_names
    return _Sampler(draw, names, ".wav", digest_of(prior_params))
