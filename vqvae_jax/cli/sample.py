"""The command sample: new images or recordings from a trained model."""

import argparse
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Int

from vqvae_jax import registry
from vqvae_jax.cli.coding import Coded, ImageCoder
from vqvae_jax.cli.loaded import Loaded, label_of, load, load_prior
from vqvae_jax.cli.outputs import make_files, png
from vqvae_jax.pipeline.samples import file_name
from vqvae_jax.runtime.checksums import sha256_of_tree
from vqvae_jax.runtime.errors import require
from vqvae_jax.sampling import require_drawable

# Key, labels [B] and the number of the batch -> the content of a file for each.
Draw = Callable[[jax.Array, Int[np.ndarray, " B"], int], list[bytes]]

_NO_SHAPING = {"temperature": 1.0, "top_k": None, "top_p": None}


class Sampler(NamedTuple):
    """How a model is sampled.

    Attributes:
      draw: a batch.
      class_names: of labels; empty without labels.
      suffix: of the files.
      prior: a hash of the prior's arrays; None without a prior.
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
    sampler = registry.load(loaded.spec.sampler)(loaded, options, shaping)
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
        batch_labels = labels[number * size : (number + 1) * size]
        return sampler.draw(key, batch_labels, number)[: len(batch)]

    kind = loaded.metadata.kind
    made_by = {"command": "sample", "kind": kind, "seed": options.seed}
    made_by |= {"batch_size": size, **shaping}
    made_by |= {"model": loaded.digest, "prior": sampler.prior}
    make_files(options, sources, make, made_by=made_by, suffix=sampler.suffix)


def image_sampler(
    loaded: Loaded, options: argparse.Namespace, shaping: dict[str, Any]
) -> Sampler:
    """Return the sampler of a model of images without a prior.

    Raises:
      UserError: the model draws no logits that the options could shape.
    """
    del options
    model, params = loaded.model, loaded.params
    draws_logits = model.traits.draws_logits
    for name, value in shaping.items():
        require(
            draws_logits or value == _NO_SHAPING[name],
            f"--{name}: the samples of a {loaded.metadata.kind} are not drawn from "
            "logits",
        )
    shaping = shaping if draws_logits else {}
    class_names = getattr(model, "class_names", ())

    def draw(key, labels, batch):
        del batch
        classes = {"labels": labels} if class_names else {}
        images = model.sample(
            params, key, num_samples=len(labels), **classes, **shaping
        )
        return [png(image) for image in np.asarray(images)]

    return Sampler(draw, class_names, ".png")


def prior_sampler(
    loaded: Loaded, options: argparse.Namespace, shaping: dict[str, Any]
) -> Sampler:
    """Return the sampler of a VQ-VAE of images and its prior.

    Raises:
      UserError: there is no trained prior.
    """
    prior, prior_params = load_prior(loaded, "prior")
    coder = ImageCoder(loaded, batch_size=options.batch_size)

    def draw(key, labels, batch):
        codes = prior.sample(
            prior_params,
            key,
            labels=labels if prior.num_classes else None,
            num_samples=len(labels),
            **shaping,
        )
        return coder.decode([Coded(each) for each in np.asarray(codes)], batch)

    return Sampler(draw, prior.class_names, ".png", sha256_of_tree(prior_params))
