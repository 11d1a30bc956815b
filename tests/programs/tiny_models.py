"""The smallest model of each registered kind, and random examples and parameters."""

import functools
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vqvae_jax import options, registry
from vqvae_jax.models.base import second_models

NUM_CODES, NUM_LABELS = 6, 2

AUTOENCODER = {"channels": 8, "num_downsamples": 1} | {
    "residual_blocks": 1,
    "residual_channels": 4,
}
_NETWORKS = {"encoder": AUTOENCODER, "decoder": AUTOENCODER}
_IMAGES = {**_NETWORKS, "likelihood": "gaussian"}
_UPDATES = {"codebook_update": "ema", "ema_decay": 0.9, "dead_code_threshold": 0.7}
_DCGAN = {"channels": 6, "num_downsamples": 1}
_PIXELCNN = {"layers": 1, "channels": 8, "kernel_size": 3}
_NOISY_PIXELCNN = {**_PIXELCNN, "dropout": 0.2}
_WAVENET = {"stacks": 1, "channels": 8, "skip_channels": 8}
_GLOBAL = {"channels": 8, "num_downsamples": 1, "residual_blocks": 0}

# Sections of a config. Everything that draws random numbers, or that lets an example
# influence another, is enabled.
MODELS: dict[str, dict[str, Any]] = {
    "vqvae": {**_IMAGES, "quantizer": {**_UPDATES, "num_codes": NUM_CODES, "dim": 4}},
    "vae": {**_IMAGES, "latent_dim": 4, "samples_per_image": 2},
    "vimco": {**_IMAGES, "num_codes": 4, "dim": 3, "num_samples": 3},
    "pixelcnn": {"network": _NOISY_PIXELCNN},
    "gan": {"latent_dim": 4, "generator": _DCGAN, "discriminator": _DCGAN, "r1": 3.0},
    "speech": {
        "quantizer": {**_UPDATES, "num_codes": NUM_CODES, "dim": 3},
        "encoder": {"downsampling": 4, "channels": 8, "residual_blocks": 1},
        "decoder": {**_WAVENET, "layers": 3},
        "jitter": 0.2,
    },
}
SECOND_STAGES: dict[str, dict[str, Any]] = {
    "prior": {"network": _NOISY_PIXELCNN, "label_dropout": 0.2},
    "hierarchy": {
        "quantizer": {**_UPDATES, "num_codebooks": 2, "num_codes": 4, "dim": 3},
        "encoder": _GLOBAL,
        "to_map": {**_GLOBAL, "out_channels": 4},
        "pixelcnn": _PIXELCNN,
    },
    "video": {
        "clip_frames": 3,
        "given_frames": 1,
        "generated_frames": 2,
        "context": {"layers": 1, "channels": 8, "dropout": 0.2},
        "pixelcnn": _NOISY_PIXELCNN,
    },
    "sequence_prior": {
        "conditional": True,
        "latents": 12,
        "network": {**_WAVENET, "layers": 2, "dropout": 0.2},
    },
}
# Two values per cell: a PixelCNN reads the first when it predicts the second.
_OF_DATA = {"image_shape": (8, 8, 2), "speaker_names": ("ann", "bob")}
_OF_CODES = {
    "grid": (4, 4, 2),
    "num_codes": NUM_CODES,
    "class_names": ("a", "b"),
    "action_names": ("left", "right"),
}


class Examples:
    """Random examples, all different, with the shapes `[1, ...]` of a batch."""

    def __init__(self, shapes, count=23):
        rng = np.random.default_rng(0)
        self._arrays = {
            name: self._draw(rng, name, (count, *shape.shape[1:]), shape.dtype)
            for name, shape in shapes.items()
            # Batches add a mask of whole examples themselves.
            if name != "mask" or len(shape.shape) > 1
        }
        self._count = count

    @staticmethod
    def _draw(rng, name, shape, dtype):
        if dtype == np.uint8:
            return rng.integers(0, 256, shape).astype(dtype)
        if dtype == np.int16:
            return rng.normal(0, 3000, shape).astype(dtype)
        if name == "mask":
            lengths = rng.integers(shape[1] // 2, shape[1] + 1, (shape[0], 1))
            return np.arange(shape[1]) < lengths
        values = NUM_CODES if name == "codes" else NUM_LABELS
        return rng.integers(0, values, shape).astype(dtype)

    def __len__(self):
        return self._count

    def __getitem__(self, index):
        return {name: array[index] for name, array in self._arrays.items()}


def every_model() -> dict[str, Any]:
    """Return the models of every stage, except those of deleted tasks."""
    models = {}
    for kind, section in MODELS.items():
        path = registry.MODELS[kind].model
        if registry.is_available(path):
            cls = registry.load(path)
            models[kind] = options.build(cls, section, name=kind, **_OF_DATA)
    for name, section in SECOND_STAGES.items():
        if registry.is_available(registry.SECOND_STAGES[name].model):
            models |= second_models(name, section, _OF_CODES)
    return models


def slow_but(names: Iterable[str], *quick: str) -> list:
    """Return parameters of a test, of which all but the quick ones are slow."""
    return [n if n in quick else pytest.param(n, marks=pytest.mark.slow) for n in names]


def given_of(model: Any) -> dict[str, Any]:
    """Return the options of a model that data or codes decide."""
    names = (field.name for field in options.fields(type(model)) if field.is_given)
    return {name: getattr(model, name) for name in names}


def changed(model: Any, changes: Mapping[str, Any]) -> Any:
    """Return a model with options changed, as {"encoder.remat": True}."""
    section: dict[str, Any] = {}
    for name, value in changes.items():
        *path, key = name.split(".")
        inner = section
        for part in path:
            inner = inner.setdefault(part, {})
        inner[key] = value
    return options.build(
        type(model), section, name="model", base=model, **given_of(model)
    )


def set_in_networks(model: Any, option: str, value: Any) -> Any:
    """Return a model with an option changed in each network that has it."""
    networks = [
        field.name
        for field in options.fields(type(model))
        if hasattr(getattr(model, field.name), option)
    ]
    return changed(model, {f"{network}.{option}": value for network in networks})


def random_arrays(shapes: Any, *, scale: float | None = None, seed: Any = 0) -> Any:
    """Return normal arrays in float32.

    Args:
      shapes: a pytree of the arrays' shapes.
      scale: their standard deviation; by default 1 / sqrt(fan-in).
      seed: an int, or a NumPy generator to draw from.
    """
    rng = np.random.default_rng(seed)

    def draw(leaf):
        size = scale or 1 / max(2, np.prod(leaf.shape[:-1])) ** 0.5
        return jnp.asarray(size * rng.normal(size=leaf.shape), "float32")

    return jax.tree.map(draw, shapes)


def random_params(model: Any, batch: Any = None, **drawn: Any) -> Any:
    """Return random parameters of a model: compiling `init` would take seconds.

    Args:
      model: any model.
      batch: that `init` gets; by default, of the shapes of `init_batch`.
      **drawn: how to draw them, arguments of `random_arrays`.
    """
    batch = model.init_batch() if batch is None else batch
    shapes = jax.eval_shape(model.init, jax.random.key(0), batch)
    return random_arrays(shapes, **drawn)


def image_batch(shape, mask=(True,) * 5, *, values=(0, 256)):
    """Return a batch of five random images, of which some are padding."""
    images = np.random.default_rng(1).integers(*values, size=(5, *shape))
    return {"image": jnp.asarray(images, "uint8"), "mask": jnp.array(mask)}


def results_of(model, params, key, batch):
    """Return the results of all methods that training calls, but `init`."""
    differentiate = jax.value_and_grad(model.loss, has_aux=True)
    (value, (means, carry)), gradient = differentiate(params, key, batch)
    return {
        "loss": value,
        "metrics": means,
        "carry": carry,
        "gradient": gradient,
        "updated": model.update(params, key, carry),
        "evaluated": model.evaluate(params, batch),
    }


@functools.partial(jax.jit, static_argnums=0)
def step(model, params, key, batch):
    """Return ((loss, (metrics, carry)), gradient), as training computes them."""
    return jax.value_and_grad(model.loss, has_aux=True)(params, key, batch)


@functools.partial(jax.jit, static_argnums=0)
def evaluate(model, params, batch):
    """Return what `model.evaluate` does; the model is a static argument."""
    return model.evaluate(params, batch)
