"""Images of a run as PNG bytes: grids of them, and what stands beside each."""

import io
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

# Small images are enlarged by whole factors up to about this many pixels a side, and
# sixteen such fill a row.
_TILE = 64
_ROW = 16 * _TILE
# The same where only a few stand beside each other.
_PANEL = 128
# The error, of 255, that the brightest colour stands for.
ERROR_SHOWN = 64


def columns_for(image_shape: tuple[int, int, int]) -> int:
    """Return how many images a row holds: 16 small ones, 8 of 128x128."""
    height, width, _ = image_shape
    return max(1, min(16, _ROW // (width * _enlargement(height, width, _TILE))))


def image_grid(
    images: UInt8[np.ndarray, "N H W C"], *, columns: int, gap: int = 4
) -> bytes:
    """Lay images out in rows; pixels are enlarged by a whole factor, never smoothed.

    What is not an image is transparent.
    """
    count, height, width, _ = images.shape
    factor = _enlargement(height, width, _TILE)
    height, width = height * factor, width * factor
    rows = -(-count // columns)
    canvas = _transparent(rows * (height + gap) - gap, columns * (width + gap) - gap)
    for number, image in enumerate(images):
        row, column = divmod(number, columns)
        _place(canvas, image, factor, row * (height + gap), column * (width + gap))
    return png(canvas)


def panels(pictures: Sequence[UInt8[np.ndarray, "_ _ _"]], *, gap: int = 4) -> bytes:
    """Lay pictures out in a row, each enlarged as far as the first one's size allows.

    Pixels are enlarged by a whole factor, never smoothed; what is left of a panel is
    transparent.
    """
    height, width, _ = pictures[0].shape
    factor = _enlargement(height, width, _PANEL)
    height, width = height * factor, width * factor
    canvas = _transparent(height, len(pictures) * (width + gap) - gap)
    for number, picture in enumerate(pictures):
        own_height, own_width, _ = picture.shape
        factor = max(1, min(height // own_height, width // own_width))
        top = (height - own_height * factor) // 2
        left = (width - own_width * factor) // 2
        _place(canvas, picture, factor, top, number * (width + gap) + left)
    return png(canvas)


def error_map(
    original: UInt8[np.ndarray, "H W C"], decoded: UInt8[np.ndarray, "H W C"]
) -> UInt8[np.ndarray, "H W 3"]:
    """Show how far each pixel is off, averaged over the channels, by `heat`."""
    error = np.abs(original.astype(float) - decoded).mean(axis=2)
    return heat(error / ERROR_SHOWN)


def heat(parts: Float[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape 3"]:
    """Return colours for numbers: black for 0, bright for 1 and more."""
    # Its import takes seconds, which a run spends when it comes to its figures.
    import matplotlib

    return matplotlib.colormaps["inferno"](np.minimum(parts, 1.0), bytes=True)[..., :3]


def png(pixels: UInt8[np.ndarray, "H W C"]) -> bytes:
    """Return pixels, grey, RGB or RGBA, as a PNG."""
    buffer = io.BytesIO()
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _enlargement(height: int, width: int, side: int) -> int:
    return max(1, side // max(height, width))


def _transparent(height: int, width: int) -> UInt8[np.ndarray, "H W 4"]:
    return np.zeros((height, width, 4), np.uint8)


def _place(canvas: np.ndarray, image: np.ndarray, factor: int, top, left) -> None:
    enlarged = image.repeat(factor, axis=0).repeat(factor, axis=1)
    height, width, channels = enlarged.shape
    tile = canvas[top : top + height, left : left + width]
    tile[..., :3] = enlarged[..., :3] if channels > 1 else enlarged
    tile[..., 3] = enlarged[..., 3] if channels == 4 else 255
