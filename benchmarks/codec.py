"""Rate and distortion of photos: a released model's codes beside JPEG and WebP.

    python benchmarks/codec.py

The codes of each photo are compressed with the learned prior, as by `compress`. JPEG
and WebP get the highest quality that takes no more bytes, and for the other comparison
the lowest one that is at least as near to the photo. Nothing is timed.
"""

import dataclasses
import io
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # Allow running as a script.

import jax.numpy as jnp
import numpy as np
from PIL import Image

from benchmarks import command
from benchmarks.report import Row, Table
from vqvae_jax.cli.loaded import load
from vqvae_jax.contrib.codec.commands import cheapest_labels, codec_of
from vqvae_jax.data.folder import read_image
from vqvae_jax.image_quality import psnr_db
from vqvae_jax.models import any_size
from vqvae_jax.runtime import resources

# Formats of Pillow and their options. JPEG halves the resolution of colours by default.
FORMATS = {
    "JPEG": ("JPEG", {"optimize": True}),
    "JPEG 4:4:4": ("JPEG", {"optimize": True, "subsampling": 0}),
    "WebP": ("WebP", {"method": 6}),
}


@dataclasses.dataclass(frozen=True)
class Sizes:
    """A released model, and the side of a crop of each photo; 0 for whole ones."""

    model: str = "cifar10"
    crop: int = 0


def measure(sizes: Sizes, rounds: int) -> Iterator[Table]:
    """Yield a table for each photo."""
    del rounds
    loaded = load(sizes.model, "compress")
    model, params, codec = loaded.model, loaded.params, codec_of(loaded)
    for path in sorted((resources.folder("weights") / "photos").glob("*.jpg")):
        image = read_image(str(path), channels=model.image_shape[-1])
        image = image[: sizes.crop or None, : sizes.crop or None]
        codes = any_size.encode(model, params, image[None], batch_size=32)
        decoded = any_size.decode(model, params, codes, batch_size=32)[0]
        size = image.shape[:2]
        labels = cheapest_labels(codec, list(codes), sizes=[size], batch_size=32)
        data = codec.compress(list(codes), labels=labels, sizes=[size]).data
        ours = psnr(image, decoded[: size[0], : size[1]])
        rows = [_row(f"vqvae_jax, {sizes.model}", len(data), ours, image)]
        for name in FORMATS:
            rows += _peers(name, image, len(data), ours)
        yield Table(f"{path.name}, {size[1]}x{size[0]}", rows)


def psnr(image: np.ndarray, other: np.ndarray) -> float:
    """Return the PSNR of two images in dB."""
    return float(psnr_db(jnp.asarray(image[None]), jnp.asarray(other[None]))[0])


def encoded(image: np.ndarray, name: str, quality: int) -> tuple[int, float]:
    """Return the bytes and the PSNR of an image in one of the formats."""
    buffer, (kind, options) = io.BytesIO(), FORMATS[name]
    grey = image.shape[-1] == 1
    picture = Image.fromarray(image[..., 0] if grey else image)
    picture.save(buffer, kind, quality=quality, **options)
    read = np.asarray(Image.open(buffer).convert("L" if grey else "RGB"))
    return buffer.getbuffer().nbytes, psnr(image, read.reshape(image.shape))


def _peers(name: str, image: np.ndarray, num_bytes: int, least: float) -> Iterator[Row]:
    qualities = {q: encoded(image, name, q) for q in range(1, 101)}
    equal = {q: found for q, found in qualities.items() if found[0] <= num_bytes}
    near = {q: found for q, found in qualities.items() if found[1] >= least}
    for title, chosen in (
        ("no more bytes", max(equal, default=None)),
        ("no less PSNR", min(near, default=None)),
    ):
        if chosen is None:
            yield Row(f"{name}, {title}: at no quality")
        else:
            yield _row(f"{name}, {title}: quality {chosen}", *qualities[chosen], image)


def _row(name: str, num_bytes: int, psnr_db: float, image: np.ndarray) -> Row:
    pixels = image.shape[0] * image.shape[1]
    return Row(
        name,
        figures={
            "bytes": num_bytes,
            "bits_per_pixel": 8 * num_bytes / pixels,
            "psnr_db": psnr_db,
        },
    )


BENCHMARK = command.Benchmark(
    "codec", measure, Sizes(), Sizes(model="digits", crop=24), rounds=1
)

if __name__ == "__main__":
    command.main(__doc__, [BENCHMARK])
