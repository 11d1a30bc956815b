"""Images of any size, through networks that were trained on one size.

Encoder and decoder are convolutional: with the same parameters they encode and decode
images of other sizes. Large ones are cut into windows of one size, so that they take a
bounded amount of memory and compile once. Windows overlap by the reach of the networks,
so that no cell or pixel that is kept of a window depends on what lies outside of it:
the result is that of the whole image at once, up to rounding.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import UInt8

from vqvae_jax.models.autoencoder import ImageAutoencoder

# Pixels that are computed at once: hidden layers have hundreds of numbers for each.
_PIXELS = 256 * 256


class Span(NamedTuple):
    """A window along one axis, in cells of the grid.

    start, stop: of the window.
    first, last: of the part of its result that is kept.
    """

    start: int
    stop: int
    first: int
    last: int


def encode(
    model: ImageAutoencoder,
    params: Any,
    images: UInt8[np.ndarray, "B H W C"],
    *,
    batch_size: int | None = None,
) -> np.ndarray:
    """Return the latents `[B, h, w, ...]` of images of any size.

    Where the encoder's strides do not divide a side, the last pixels are repeated.

    Args:
      model: trained on images of one size.
      params: its parameters.
      images: of one other size.
      batch_size: of small images, for which one program is compiled; B by default.
    """
    stride = model.stride
    height, width = images.shape[1:3]
    more = (-height % stride, -width % stride)
    if any(more):
        images = np.pad(images, ((0, 0), *((0, n) for n in more), (0, 0)), "edge")
    return _in_windows(
        lambda sized, part: _encode(sized, params, part),
        images,
        model,
        reach=model.encoder.reach,
        before=stride,
        after=1,
        batch_size=batch_size,
    )


def decode(
    model: ImageAutoencoder,
    params: Any,
    latents: np.ndarray,
    *,
    batch_size: int | None = None,
) -> UInt8[np.ndarray, "B H W C"]:
    """Return the images of latents `[B, h, w, ...]` of any size, as `decode` does."""
    return _in_windows(
        lambda sized, part: _decode(sized, params, part),
        latents,
        model,
        reach=model.decoder.reach,
        before=1,
        after=model.stride,
        batch_size=batch_size,
    )


def reconstruct(
    model: ImageAutoencoder,
    params: Any,
    images: UInt8[np.ndarray, "B H W C"],
    *,
    batch_size: int | None = None,
) -> UInt8[np.ndarray, "B H W C"]:
    """Return reconstructions of images of any size, of their sizes."""
    height, width = images.shape[1:3]
    latents = encode(model, params, images, batch_size=batch_size)
    whole = decode(model, params, latents, batch_size=batch_size)
    return whole[:, :height, :width]


@functools.partial(jax.jit, static_argnums=0)
def _encode(model, params, images):
    return model.encode(params, images)


@functools.partial(jax.jit, static_argnums=0)
def _decode(model, params, latents):
    return model.decode(params, latents)


def _in_windows(
    function: Callable[[ImageAutoencoder, np.ndarray], jax.Array],
    inputs: np.ndarray,
    model: ImageAutoencoder,
    *,
    reach: int,
    before: int,
    after: int,
    batch_size: int | None,
) -> np.ndarray:
    """Apply a function of a model to `[B, H, W, ...]`, window by window.

    Args:
      function: of a model with the windows' size, and inputs of that size.
      inputs: whole images or grids.
      model: of any size.
      reach: cells beyond a cell on which its result depends.
      before: rows of the inputs for each row of cells.
      after: rows of the results for each row of cells.
      batch_size: at most this many inputs at once, and no fewer if they are small.
    """
    batch, *sides = inputs.shape[:3]
    cells = [side // before for side in sides]
    longest = max(_PIXELS**0.5 // model.stride, 4 * reach)
    window = [min(side, int(longest)) for side in cells]
    pixels = window[0] * window[1] * model.stride**2
    at_once = max(1, min(batch_size or batch, _PIXELS // pixels))
    if batch < at_once:
        more = ((0, at_once - batch), *[(0, 0)] * (inputs.ndim - 1))
        inputs = np.pad(inputs, more, "edge")
    shape = (*(side * model.stride for side in window), model.image_shape[-1])
    sized = dataclasses.replace(model, image_shape=shape)
    rows, columns = (spans(*pair, reach) for pair in zip(cells, window, strict=True))
    grid = list(itertools.product(rows, columns))
    results = None
    for number in range(0, batch, at_once):
        # The last images are computed twice: another batch size would be compiled.
        start = min(number, len(inputs) - at_once)
        images = slice(start, start + at_once)
        for windows in grid:
            part = [slice(before * s.start, before * s.stop) for s in windows]
            found = np.asarray(function(sized, inputs[images, *part]))
            if results is None:
                whole = [after * side for side in cells]
                shape = (len(inputs), *whole, *found.shape[3:])
                results = np.zeros(shape, found.dtype)
            to = [slice(after * s.first, after * s.last) for s in windows]
            kept = [
                slice(after * (s.first - s.start), after * (s.last - s.start))
                for s in windows
            ]
            results[images, *to] = found[:, *kept]
    return results[:batch]


def spans(size: int, window: int, reach: int) -> Iterator[Span]:
    """Yield windows of one size along an axis, whose kept parts cover it once.

    A kept part is at least `reach` away from an end of its window, unless that is an
    end of the axis.
    """
    first = 0
    while first < size:
        start = min(max(first - reach, 0), size - window)
        stop = start + window
        last = size if stop == size else stop - reach
        yield Span(start, stop, first, last)
        first = last
