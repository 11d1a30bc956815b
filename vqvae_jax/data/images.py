"""Decoding of images, and conversion to uint8 [image_size, image_size, channels]."""

import io

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from vqvae_jax.runtime.errors import require

# Pillow identifies a file by its content and reads dozens of formats; for PostScript it
# starts Ghostscript, which executes the file.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")
_CONVERTIBLE = ("1", "L", "P", "RGB", "CMYK", "YCbCr", "LAB", "HSV")


def open_image(file: str | io.BytesIO) -> Image.Image:
    """Open a JPEG, PNG, WebP, BMP or GIF image without decoding it.

    Raises:
        OSError: the content has another format.
        Image.DecompressionBombError: it claims more than `Image.MAX_IMAGE_PIXELS`.
        Exception: Pillow's many types, if the header is damaged.
    """
    try:
        image = Image.open(file, formats=_FORMATS)
    except UnidentifiedImageError as error:
        raise OSError("it is not a JPEG, PNG, WebP, BMP or GIF image") from error
    pixels, limit = image.width * image.height, Image.MAX_IMAGE_PIXELS
    if pixels > limit:
        # Pillow only warns up to twice the limit.
        raise Image.DecompressionBombError(
            f"it claims {pixels} pixels, expected at most {limit}"
        )
    return image


def load(file: str | io.BytesIO) -> Image.Image:
    """Decode all pixels of an image that `open_image` opens: of its first frame.

    Raises:
        Exception: see `open_image`; Pillow's many types for damage and truncation.
    """
    with open_image(file) as image:
        # Pillow reports damage only on the first load(); later ones return black
        # pixels.
        image.load()
        return image


def decode(
    encoded: bytes, *, image_size: int, channels: int
) -> UInt8[np.ndarray, "image_size image_size channels"]:
    """`load` an image from bytes, and `fit` it."""
    return fit(load(io.BytesIO(encoded)), image_size=image_size, channels=channels)


def fit(
    image: Image.Image, *, image_size: int, channels: int
) -> UInt8[np.ndarray, "image_size image_size channels"]:
    """Convert colours, resize so that the shorter side fits, and centre-crop.

    Transparent pixels become white, 16-bit grey keeps its upper 8 bits, and grey and
    RGB are converted to `channels` (1 or 3). The filter is Pillow's antialiased
    bicubic. An image of the right size keeps its pixels.

    Raises:
        UserError: the mode of the image, such as 32-bit, has no obvious 8-bit form.
    """
    image = eight_bit(image, channels=channels)
    if image.size != (image_size, image_size):
        side = min(image.size)
        left, top = (image.width - side) / 2, (image.height - side) / 2
        image = image.resize(
            (image_size, image_size),
            Image.Resampling.BICUBIC,
            # Resizing the central square of the source is equal to resizing and then
            # cropping, and does not compute the pixels outside the crop.
            box=(left, top, left + side, top + side),
        )
    return np.asarray(image).reshape(image_size, image_size, channels)


def fit_array(
    array: UInt8[np.ndarray, "h w c"], *, image_size: int, channels: int
) -> UInt8[np.ndarray, "image_size image_size channels"]:
    """`fit` an image given as an array with 1, 3 or 4 channels."""
    if array.shape == (image_size, image_size, channels):
        return array
    squeezed = array[..., 0] if array.shape[-1] == 1 else array
    image = Image.fromarray(np.ascontiguousarray(squeezed))
    return fit(image, image_size=image_size, channels=channels)


def eight_bit(image: Image.Image, *, channels: int) -> Image.Image:
    """Convert colours, and nothing else, as `fit` does."""
    mode = "L" if channels == 1 else "RGB"
    require(
        image.mode in _CONVERTIBLE
        or image.mode.startswith("I;16")
        or image.has_transparency_data,
        f"an image has Pillow mode {image.mode!r}, which has no 8-bit form; convert it "
        "to 8-bit grey or RGB",
    )
    if image.mode.startswith("I;16"):
        image = _upper_bits(image)
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image if image.mode == mode else image.convert(mode)


def _upper_bits(image: Image.Image) -> Image.Image:
    """Convert 16-bit grey to 8 bits, which Pillow clips; make transparency white."""
    wide = np.asarray(image)
    grey = (wide >> 8).astype(np.uint8)
    grey[wide == image.info.get("transparency", -1)] = 255
    return Image.fromarray(grey)
