"""The command sample: new images or recordings from a trained model."""

import argparse
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Int, UInt32

from vqvae_jax import registry
from vqvae_jax.cli.coding import Coded, ImageCoder
from vqvae_jax.cli.inputs import CONTACT_SHEET
from vqvae_jax.cli.loaded import Loaded, label_of, load, load_prior
from vqvae_jax.cli.outputs import make_files, png
from vqvae_jax.data.folder import read_image
from vqvae_jax.pipeline.samples import safe_name
from vqvae_jax.report import image_grid
from vqvae_jax.runtime.checksums import sha256_of_tree
from vqvae_jax.runtime.errors import require
from vqvae_jax.sampling import require_drawable

_NO_SHAPING = {"temperature": 1.0, "top_k": None, "top_p": None}
# Rows of a contact sheet.
_MAX_ROWS = 10


class Sampler(NamedTuple):
    """How a model is sampled.

    Attributes:
      params: of the function `draw`.
      draw: maps parameters, a key and a label to one sample, such as a grid of codes.
      files: maps samples, by their names, and their labels to the content of files.
      class_names: of labels; empty without labels.
      suffix: of the files.
      prior: a hash of the prior's arrays; None without a prior.
    """

    params: Any
    draw: Callable[[Any, Array, Int[Array, ""]], Array]
    files: Callable[[Mapping[str, np.ndarray], Int[np.ndarray, " B"]], list[bytes]]
    class_names: tuple[str, ...]
    suffix: str
    prior: str | None = None


def sample(options: argparse.Namespace) -> None:
    """Draw samples and write each to a file; of images, a contact sheet too."""
    shaping = {name: getattr(options, name) for name in _NO_SHAPING}
    require_drawable(**shaping)
    loaded = load(options.model, "sample")
    options.batch_size = size = min(options.batch_size, options.num)
    sampler = registry.load(loaded.spec.sampler)(loaded, options, shaping)
    labels = np.arange(options.num, dtype=np.int32) % max(1, len(sampler.class_names))
    if options.label is not None:
        labels[:] = label_of(sampler.class_names, options.label)
    names = sample_names(sampler.class_names, labels)
    numbers = {name: number for number, name in enumerate(names)}
    # Each sample has its own key, and so does not depend on the others.
    draw = jax.jit(jax.vmap(sampler.draw, (None, 0, 0)))

    def make(batch):
        chosen = [numbers[name] for name in batch]
        # The last batch is filled up, so that there is one shape to compile.
        padded = np.resize(chosen, size).astype(np.uint32)
        drawn = draw(sampler.params, keys_of(options.seed, padded), labels[padded])
        samples = dict(zip(batch, np.asarray(drawn), strict=False))
        return sampler.files(samples, labels[chosen])

    made_by = {"command": "sample", "kind": loaded.metadata.kind}
    made_by |= {"seed": options.seed, **shaping}
    made_by |= {"model": loaded.digest, "prior": sampler.prior}
    are_images = sampler.suffix == ImageCoder.suffix
    sheet = functools.partial(contact_sheet, num_classes=len(set(labels.tolist())))
    make_files(
        options,
        {name: str(label) for name, label in zip(names, labels, strict=True)},
        make,
        made_by=made_by,
        suffix=sampler.suffix,
        summary=(CONTACT_SHEET, sheet) if are_images else None,
    )


def keys_of(seed: int, numbers: UInt32[np.ndarray, " B"]) -> Array:
    """Return a key for each number, `[B]`."""
    return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), numbers)


def sample_names(
    class_names: Sequence[str], labels: Int[np.ndarray, " B"]
) -> list[str]:
    """Return the names of samples: `sample_00003_frog`, `sample_00007_class7`."""

    def of_class(label):
        name = safe_name(class_names[label])
        return f"_class{name}" if name.isdigit() else f"_{name}"

    classes = [of_class(label) if class_names else "" for label in labels]
    return [f"sample_{number:05d}{name}" for number, name in enumerate(classes)]


def contact_sheet(paths: Sequence[Path], *, num_classes: int) -> bytes:
    """Return a .png file of the first images, those of a class in a column."""
    first = read_image(str(paths[0]), channels=3)
    columns = image_grid.columns_for(first.shape)
    if 1 < num_classes <= columns:
        columns = num_classes
    shown = paths[: _MAX_ROWS * columns]
    images = np.stack([read_image(str(path), channels=3) for path in shown])
    return image_grid.image_grid(images, columns=min(columns, len(images)))


def image_sampler(
    loaded: Loaded, options: argparse.Namespace, shaping: dict[str, Any]
) -> Sampler:
    """Return the sampler of a model of images without a prior.

    Raises:
      UserError: the model draws no logits that the options could shape.
    """
    del options
    model = loaded.model
    draws_logits = model.traits.draws_logits
    for name, value in shaping.items():
        require(
            draws_logits or value == _NO_SHAPING[name],
            f"--{name}: the samples of a {loaded.metadata.kind} are not drawn from "
            "logits",
        )
    shaping = shaping if draws_logits else {}
    class_names = getattr(model, "class_names", ())

    def draw(params, key, label):
        classes = {"labels": label[None]} if class_names else {}
        return model.sample(params, key, num_samples=1, **classes, **shaping)[0]

    def files(images, labels):
        del labels
        return [png(image) for image in images.values()]

    return Sampler(loaded.params, draw, files, class_names, ".png")


def prior_sampler(
    loaded: Loaded, options: argparse.Namespace, shaping: dict[str, Any]
) -> Sampler:
    """Return the sampler of a VQ-VAE of images and its prior.

    Raises:
      UserError: there is no trained prior.
    """
    prior, params = load_prior(loaded, "prior")
    coder = ImageCoder(loaded, batch_size=options.batch_size)

    def draw(params, key, label):
        labels = label[None] if prior.num_classes else None
        return prior.sample(params, key, labels=labels, num_samples=1, **shaping)[0]

    def files(codes, labels):
        del labels
        return coder.decode({name: Coded(each) for name, each in codes.items()})

    return Sampler(
        params, draw, files, prior.class_names, ".png", sha256_of_tree(params)
    )
