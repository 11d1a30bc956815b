"""The command interpolate: images between two images."""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, UInt8

from vqvae_jax.cli.coding import ImageCoder, require_images
from vqvae_jax.cli.inputs import files_of
from vqvae_jax.cli.loaded import Loaded, load
from vqvae_jax.cli.outputs import make_files, png
from vqvae_jax.data.folder import read_image
from vqvae_jax.report import image_grid
from vqvae_jax.runtime.errors import require

_BATCH = 32


def interpolate(options: argparse.Namespace) -> None:
    """Write images between two images, and all of them as a strip."""
    loaded = load(options.model, "interpolate")
    model, params = loaded.model, loaded.params
    ends = [
        *files_of([options.first], ImageCoder.input_suffixes),
        *files_of([options.last], ImageCoder.input_suffixes),
    ]
    require(len(ends) == 2, f"interpolate needs two images, got {len(ends)}")
    require_images(ends)
    parts = np.linspace(0.0, 1.0, options.steps)

    def make(names):
        paths = [str(end.path) for end in ends]
        side, _, channels = model.image_shape
        size = {"image_size": side, "channels": channels}
        images = np.stack([read_image(path, **size) for path in paths])
        if options.space == "z_e":
            codes = between_outputs(loaded, images, parts)
        else:
            ends_codes = np.asarray(model.encode(params, images))
            codes = between_codes(ends_codes, parts, seed=options.seed)
        decode = jax.jit(model.decode)
        # Of two sizes at most, so that there is little to compile.
        batches = np.array_split(codes, -(-len(codes) // _BATCH))
        decoded = np.concatenate([decode(params, part) for part in batches])
        made = {f"{i:03d}": png(image) for i, image in enumerate(decoded)}
        made["strip"] = image_grid.image_grid(decoded, columns=len(decoded))
        return [made[name] for name in names]

    names = [f"{i:03d}" for i in range(options.steps)] + ["strip"]
    options.batch_size = len(names)
    made_by = {name: getattr(options, name) for name in ("command", "space", "seed")}
    made_by |= {"model": loaded.digest, "steps": options.steps}
    made_by |= {"ends": [str(end.path.absolute()) for end in ends]}
    make_files(
        options,
        {name: name for name in names},
        make,
        made_by=made_by,
        suffix=".png",
        reads=made_by["ends"],
    )


def between_outputs(
    loaded: Loaded,
    images: UInt8[np.ndarray, "2 H W C"],
    parts: Float[np.ndarray, " S"],
) -> Int[np.ndarray, "S h w G"]:
    """Return the codes of points on the straight line between two z_e.

    Args:
      loaded: the model.
      images: the first and the last.
      parts: positions on the line, 0 ... 1.
    """
    first, last = loaded.model.z_e(loaded.params, images)
    weights = jnp.asarray(parts, jnp.float32)[:, None, None, None]
    z_e = (1 - weights) * first[None] + weights * last[None]
    quantizer, state = loaded.model.quantizer, loaded.params.quantizer
    return np.asarray(quantizer.quantize(state, z_e).codes)


def between_codes(
    codes: Int[np.ndarray, "2 h w G"], parts: Float[np.ndarray, " S"], *, seed: int
) -> Int[np.ndarray, "S h w G"]:
    """Return codes in which a random fraction is the last image's.

    The codes of a smaller fraction are among those of a larger one.

    Args:
      codes: of the first and the last image.
      parts: fractions of the last image's codes, 0 ... 1.
      seed: of the order.
    """
    first, last = codes
    ranks = np.random.default_rng(seed).permutation(first.size).reshape(first.shape)
    changed = np.round(parts * first.size)
    return np.where(ranks < changed[:, None, None, None], last, first)
