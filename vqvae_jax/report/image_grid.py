"""Image grids, side-by-side panels and error maps, as PNG bytes."""

import io
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

# Small images are enlarged by an integer factor to at most this many pixels a side;
# sixteen of them fill a row.
_TILE = 64
_ROW = 16 * _TILE
# The same for panels, of which only a few share a row.
_PANEL = 128
# Error, out of 255, at which the colour map saturates.
ERROR_SHOWN = 64


def columns_for(image_shape: tuple[int, int, int]) -> int:
    """Return the number of images in a row: 16 if small, 8 for 128x128."""
    height, width, _ = image_shape
    return max(1, min(16, _ROW // (width * _enlargement(height, width, _TILE))))


def image_grid(
    images: UInt8[np.ndarray, "N H W C"], *, columns: int, gap: int = 4
) -> bytes:
    """Lay images out in rows on a transparent background.

    Small images are enlarged by an integer factor, without smoothing.
    """
    count, height, width, _ = images.shape
    factor = _enlargement(height, width, _TILE)
    height, width = height * factor, width * factor
    rows = -(-count // columns)
    canvas = _transparent(rows * (height + gap) - gap, columns * (width + gap) - gap)
    for number, image in enumerate(images):
        row, column = divmod(number, columns)
        _paste(canvas, image, factor, row * (height + gap), column * (width + gap))
    return png(canvas)


def panels(pictures: Sequence[UInt8[np.ndarray, "_ _ _"]], *, gap: int = 4) -> bytes:
    """Lay pictures out in a row of panels of the first picture's size.

    Each picture is enlarged by the largest integer factor that fits its panel, without
    smoothing, and centred on a transparent background.
    """
    height, width, _ = pictures[0].shape
    factor = _enlargement(height, width, _PANEL)
    height, width = height * factor, width * factor
    canvas = _transparent(height, len(pictures) * (width + gap) - gap)
    for number, picture in enumerate(pictures):
        rows, columns, _ = picture.shape
        factor = max(1, min(height // rows, width // columns))
        top = (height - rows * factor) // 2
        left = (width - columns * factor) // 2
        _paste(canvas, picture, factor, top, number * (width + gap) + left)
    return png(canvas)


def error_map(
    original: UInt8[np.ndarray, "H W C"], decoded: UInt8[np.ndarray, "H W C"]
) -> UInt8[np.ndarray, "H W 3"]:
    """Return the absolute error of each pixel, averaged over channels, as colours."""
    error = np.abs(original.astype(float) - decoded).mean(axis=2)
    return heat(error / ERROR_SHOWN)


def heat(values: Float[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape 3"]:
    """Map values to colours, from black at 0 to the brightest at 1 and above."""
    # Importing matplotlib takes seconds, so defer it.
    import matplotlib

    return matplotlib.colormaps["inferno"](np.minimum(values, 1.0), bytes=True)[..., :3]


def png(pixels: UInt8[np.ndarray, "H W C"]) -> bytes:
    """Encode grey, RGB or RGBA pixels as a PNG."""
    buffer = io.BytesIO()
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _enlargement(height: int, width: int, side: int) -> int:
    return max(1, side // max(height, width))


def _transparent(height: int, width: int) -> UInt8[np.ndarray, "H W 4"]:
    return np.zeros((height, width, 4), np.uint8)


def _paste(canvas: np.ndarray, image: np.ndarray, factor: int, top, left) -> None:
    enlarged = image.repeat(factor, axis=0).repeat(factor, axis=1)
    height, width, channels = enlarged.shape
    tile = canvas[top : top + height, left : left + width]
    tile[..., :3] = enlarged[..., :3] if channels > 1 else enlarged
    tile[..., 3] = enlarged[..., 3] if channels == 4 else 255
