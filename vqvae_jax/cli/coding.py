"""The commands encode, decode and reconstruct, and the maps from files to codes."""

import argparse
import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

from vqvae_jax import registry
from vqvae_jax.cli.inputs import CODES, Input, files_of, sources_of
from vqvae_jax.cli.loaded import Loaded, load
from vqvae_jax.cli.outputs import Make, make_files, png
from vqvae_jax.data import folder
from vqvae_jax.data.config import SUFFIXES
from vqvae_jax.models import any_size
from vqvae_jax.runtime.arrays import require_range, require_shape
from vqvae_jax.runtime.errors import require
from vqvae_jax.runtime.safe_io import npz, read_arrays

Codes = Int[np.ndarray, "..."]

# Pixels of the images that are read at once, if they are more than one.
_PIXELS = 2**22


class Coded(NamedTuple):
    """The codes of a file.

    codes: `[h, w, C]` of an image, `[n]` of a recording.
    size: `(H, W)` of an image whose grid has room for more; None otherwise.
    """

    codes: Codes
    size: tuple[int, int] | None = None


@runtime_checkable
class Coder(Protocol):
    """The maps of a kind of model between files and codes.

    Attributes:
      suffix: of decoded files.
      input_suffixes: of the files to encode.
    """

    suffix: str
    input_suffixes: Sequence[str]

    @staticmethod
    def require_inputs(files: Sequence[Input], loaded: Loaded) -> None:
        """Raise UserError if a file to encode cannot be read."""

    @staticmethod
    def encoding_options(options: argparse.Namespace) -> dict[str, Any]:
        """Return the options of a command that change codes.

        Raises:
          UserError: one does not apply.
        """

    @staticmethod
    def decoding_options(loaded: Loaded, options: argparse.Namespace) -> dict[str, Any]:
        """Return the options of a command that change decoded files.

        Raises:
          UserError: one is missing or invalid.
        """

    @classmethod
    def from_options(
        cls, loaded: Loaded, options: argparse.Namespace, *, batch_size: int
    ) -> "Coder":
        """Make the coder of a command."""

    def encode(self, paths: Sequence[str]) -> list[Coded]:
        """Return the codes of files."""

    def decode(self, coded: Mapping[str, Coded]) -> list[bytes]:
        """Return a file for the codes of each name.

        What is drawn depends on the name, not on the other codes.
        """

    def reconstruct(self, paths: Mapping[str, str]) -> list[bytes]:
        """Return the reconstruction of the file of each name."""

    def quality(self) -> str:
        """Return how near the reconstructions so far are, "" if it is not measured."""

    def require_codes(self, coded: Coded, *, where: Path) -> None:
        """Raise UserError, naming a file, unless codes fit the model."""


class ImageCoder:
    """The coder of models of images, which keep their size unless they are resized."""

    suffix = ".png"
    input_suffixes = SUFFIXES

    def __init__(self, loaded: Loaded, *, batch_size: int, resize: bool = False):
        """Set up the model; nothing is compiled yet.

        Args:
          loaded: the model.
          batch_size: of small images.
          resize: images to the model's size, and crop them to a square.
        """
        self._model, self._params = loaded.model, loaded.params
        self._batch_size, self._resize = batch_size, resize
        self._psnr: list[float] = []

    @staticmethod
    def require_inputs(files: Sequence[Input], loaded: Loaded) -> None:
        """Raise UserError, naming an image, unless all images appear readable."""
        del loaded
        require_images(files)

    @staticmethod
    def encoding_options(options: argparse.Namespace) -> dict[str, Any]:
        """Return whether images are resized."""
        return {"resize": options.resize}

    @staticmethod
    def decoding_options(loaded: Loaded, options: argparse.Namespace) -> dict[str, Any]:
        """Return {}: decoding images has no options."""
        del loaded, options
        return {}

    @classmethod
    def from_options(
        cls, loaded: Loaded, options: argparse.Namespace, *, batch_size: int
    ) -> "ImageCoder":
        """Make the coder of a command; `decode` has no --resize."""
        resize = getattr(options, "resize", False)
        return cls(loaded, batch_size=batch_size, resize=resize)

    def encode(self, paths: Sequence[str]) -> list[Coded]:
        """Return the codes of image files."""
        coded = []
        for images in self._images(paths):
            codes = self._apply(any_size.encode, images)
            stride, size = self._model.stride, images.shape[1:3]
            is_whole = all(side % stride == 0 for side in size)
            coded += [Coded(each, None if is_whole else size) for each in codes]
        return coded

    def require_codes(self, coded: Coded, *, where: Path) -> None:
        """Raise UserError, naming a file, unless codes are those of an image."""
        codes, size = coded
        require_shape(f"the codes in {where}", codes, "h", "w", self._model.grid[-1])
        require(codes.size > 0, f"there are no codes in {where}")
        require_range(f"the codes in {where}", codes, 0, self._model.num_codes)
        stride = self._model.stride
        pixels = codes.shape[0] * codes.shape[1] * stride**2
        require(
            pixels <= Image.MAX_IMAGE_PIXELS,
            f"the codes in {where} are those of {pixels} pixels, expected at most "
            f"{Image.MAX_IMAGE_PIXELS}",
        )
        require(
            size is None
            or all(
                0 <= stride * cells - side < stride
                for cells, side in zip(codes.shape, size, strict=False)
            ),
            f"the size {size} in {where} is not that of {codes.shape[:2]} codes",
        )

    def decode(self, coded: Mapping[str, Coded]) -> list[bytes]:
        """Return a PNG file for the codes of each image."""
        each = coded.values()  # Nothing is drawn that would depend on names.
        files = []
        for group in _of_one_shape(each, lambda one: one.codes.shape, self._at_once):
            codes = np.stack([one.codes for one in group]).astype(np.int32)
            for one, image in zip(
                group, self._apply(any_size.decode, codes), strict=True
            ):
                height, width = one.size or image.shape[:2]
                files.append(png(image[:height, :width]))
        return files

    def reconstruct(self, paths: Mapping[str, str]) -> list[bytes]:
        """Return a PNG file for the reconstruction of each image."""
        files = []
        for images in self._images(list(paths.values())):
            for image, decoded in zip(
                images, self._apply(any_size.reconstruct, images), strict=True
            ):
                self._psnr.append(_psnr_db(image, decoded))
                files.append(png(decoded))
        return files

    def quality(self) -> str:
        """Return the PSNR of the reconstructions so far."""
        if not self._psnr:
            return ""
        low, mean, high = min(self._psnr), np.mean(self._psnr), max(self._psnr)
        spread = f" ({low:.1f} ... {high:.1f})" if len(self._psnr) > 1 else ""
        return f"PSNR {mean:.1f} dB{spread}"

    def _apply(self, function: Callable[..., np.ndarray], batch: np.ndarray) -> Any:
        return function(self._model, self._params, batch, batch_size=self._batch_size)

    def _images(self, paths: Sequence[str]) -> Iterator[UInt8[np.ndarray, "n h w c"]]:
        """Yield the images of files in order, as batches of one size."""
        side, _, channels = self._model.image_shape
        size = side if self._resize else None
        images = (
            folder.read_image(path, channels=channels, image_size=size)
            for path in paths
        )
        for group in _of_one_shape(images, np.shape, self._at_once):
            # An image can be large: it is not copied.
            yield np.stack(group) if len(group) > 1 else group[0][None]

    def _at_once(self, shape: Sequence[int]) -> int:
        """Return how many arrays of a shape are stacked."""
        return min(self._batch_size, max(1, _PIXELS // math.prod(shape[:2])))


def _psnr_db(
    image: UInt8[np.ndarray, "h w c"], decoded: UInt8[np.ndarray, "h w c"]
) -> float:
    """Return the PSNR of one image, row by row: an image can have 24 megapixels."""
    errors = sum(
        float(np.square(row.astype(np.int32) - other).sum())
        for row, other in zip(image, decoded, strict=True)
    )
    # As `image_quality.psnr_db`, 148 dB for equal images.
    return 10 * math.log10(255**2 / max(errors / image.size, 1e-10))


def _of_one_shape(
    items: Iterable[Any],
    shape_of: Callable[[Any], tuple[int, ...]],
    at_once: Callable[[Sequence[int]], int],
) -> Iterator[list[Any]]:
    """Yield runs of items of one shape, not longer than `at_once` of that shape."""
    for shape, run in itertools.groupby(items, key=shape_of):
        while group := list(itertools.islice(run, at_once(shape))):
            yield group


def require_images(files: Sequence[Input]) -> None:
    """Raise UserError if an image cannot be read; the message names the first.

    Damage in the middle of an image is only detected when it is decoded.
    """
    bad = folder.unreadable([str(file.path) for file in files])
    first = files[min(bad, default=0)].path
    require(
        not bad,
        f"{len(bad)} of {len(files)} images cannot be read, first {first}: "
        f"{bad[min(bad)] if bad else ''}",
    )


def encode(options: argparse.Namespace) -> None:
    """Write the codes of each image or recording."""
    loaded = load(options.model, "encode")
    files = _inputs(loaded, options.inputs)
    coder, fingerprint = _coder(loaded, options, files), loaded.fingerprint

    def make(paths):
        coded = coder.encode(list(paths.values()))
        return [codes_file(each, fingerprint) for each in coded]

    made_by = {"command": "encode", "model": fingerprint, **_encoding(loaded, options)}
    _make(options, files, make, made_by=made_by, suffix=".npz")


def decode(options: argparse.Namespace) -> None:
    """Write the image or the audio of codes."""
    loaded = load(options.model, "decode")
    files = files_of(options.inputs, CODES)
    made_by = _made_by(loaded, options)
    coder, fingerprint = _coder(loaded, options, files), loaded.fingerprint
    for file in files:
        coder.require_codes(read_codes(file.path, fingerprint), where=file.path)

    def make(paths):
        return coder.decode(
            {name: read_codes(Path(path), fingerprint) for name, path in paths.items()}
        )

    _make(options, files, make, made_by=made_by, suffix=coder.suffix)


def reconstruct(options: argparse.Namespace) -> None:
    """Write the reconstruction of each image or recording."""
    loaded = load(options.model, "reconstruct")
    files = _inputs(loaded, options.inputs)
    made_by = _made_by(loaded, options) | _encoding(loaded, options)
    coder = _coder(loaded, options, files)
    start = time.monotonic()
    _make(options, files, coder.reconstruct, made_by=made_by, suffix=coder.suffix)
    if quality := coder.quality():
        seconds = f"{time.monotonic() - start:.0f} s"
        print(", ".join(filter(None, (quality, _saving(loaded.model), seconds))))


def _saving(model: Any) -> str:
    """Return how much smaller than images the codes are, "" for a model without."""
    if not hasattr(model, "code_bits"):
        return ""
    return f"{8 * model.num_dims / model.code_bits:.3g} times fewer bits"


def codes_file(coded: Coded, fingerprint: str) -> bytes:
    """Return an .npz file of codes and the fingerprint of their model."""
    codes, size = coded
    smallest = np.min_scalar_type(int(codes.max(initial=0)))
    arrays = {"codes": codes.astype(smallest), "fingerprint": np.array(fingerprint)}
    return npz(**arrays, **({} if size is None else {"size": np.array(size)}))


def read_codes(path: Path, fingerprint: str) -> Coded:
    """Return the codes of such a file.

    Raises:
      UserError: it is not such a file, damaged, or of another model.
    """
    arrays = read_arrays(path, {"fingerprint": "U"})
    codes, found = arrays.get("codes"), str(arrays["fingerprint"])
    require(codes is not None, f"{path} has no array `codes`: `encode` writes it")
    require(
        found == fingerprint,
        f"{path} contains the codes of another model ({found}, this one is "
        f"{fingerprint})",
    )
    require(
        np.issubdtype(codes.dtype, np.integer),
        f"{path} contains codes of type {codes.dtype}, expected integers",
    )
    largest = int(codes.max(initial=0))
    require(
        largest < 2**31, f"{path} contains the code {largest}, expected less than 2**31"
    )
    size = arrays.get("size")
    if size is not None:
        require_shape(f"the size in {path}", size, 2)
        require(
            np.issubdtype(size.dtype, np.integer),
            f"the size in {path} is of type {size.dtype}, expected integers",
        )
        size = tuple(int(side) for side in size)
    return Coded(codes.astype(np.int32), size)


def _make(
    options: argparse.Namespace,
    files: Sequence[Input],
    make: Make,
    *,
    made_by: dict[str, Any],
    suffix: str,
) -> None:
    """Make a file of each input."""
    sources = sources_of(files)
    make_files(
        options, sources, make, made_by=made_by, suffix=suffix, reads=sources.values()
    )


def _encoding(loaded: Loaded, options: argparse.Namespace) -> dict[str, Any]:
    """Return the options that determine codes."""
    return registry.load(loaded.spec.coder).encoding_options(options)


def _made_by(loaded: Loaded, options: argparse.Namespace) -> dict[str, Any]:
    """Return what determines decoded files."""
    decoding = registry.load(loaded.spec.coder).decoding_options(loaded, options)
    return {"command": options.command, "model": loaded.digest, **decoding}


def _inputs(loaded: Loaded, inputs: Sequence[str]) -> list[Input]:
    """Return the files to encode; all are checked before work starts."""
    coder = registry.load(loaded.spec.coder)
    files = files_of(inputs, coder.input_suffixes)
    coder.require_inputs(files, loaded)
    return files


def _coder(
    loaded: Loaded, options: argparse.Namespace, files: Sequence[Input]
) -> Coder:
    batch_size = min(options.batch_size, len(files))
    coder = registry.load(loaded.spec.coder)
    return coder.from_options(loaded, options, batch_size=batch_size)
