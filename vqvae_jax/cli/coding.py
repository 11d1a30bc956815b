"""The commands encode, decode and reconstruct, and the maps from files to codes."""

import argparse
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Int, Shaped, UInt8

from vqvae_jax import registry
from vqvae_jax.cli.inputs import CODES, Input, files_of, sources_of
from vqvae_jax.cli.loaded import Loaded, load
from vqvae_jax.cli.outputs import Make, make_files, png
from vqvae_jax.data import folder
from vqvae_jax.data.batches import eval_batches
from vqvae_jax.data.config import SUFFIXES
from vqvae_jax.data.folder import FolderSource
from vqvae_jax.runtime.arrays import require_range, require_shape
from vqvae_jax.runtime.errors import require
from vqvae_jax.runtime.safe_io import npz, read_arrays

Codes = Int[np.ndarray, "..."]
Images = UInt8[np.ndarray, "B h w c"]


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

    def encode(self, paths: Sequence[str]) -> list[Codes]:
        """Return the codes of files."""

    def decode(self, codes: Sequence[Codes], batch: int) -> list[bytes]:
        """Return a file for the codes of each item of a batch."""

    def reconstruct(self, paths: Sequence[str], batch: int) -> list[bytes]:
        """Return the reconstruction of each file of a batch."""

    def require_codes(self, codes: Codes, *, where: Path) -> None:
        """Raise UserError, naming a file, unless codes fit the model."""


class ImageCoder:
    """The coder of models of images."""

    suffix = ".png"
    input_suffixes = SUFFIXES

    def __init__(self, loaded: Loaded, *, batch_size: int):
        """Set up the functions; nothing is compiled yet."""
        self._model, self._params = loaded.model, loaded.params
        self._batch_size = batch_size
        self._encode = jax.jit(loaded.model.encode)
        self._decode = jax.jit(loaded.model.decode)
        self._reconstruct = jax.jit(loaded.model.reconstruct)

    @staticmethod
    def require_inputs(files: Sequence[Input], loaded: Loaded) -> None:
        """Raise UserError, naming an image, unless all images appear readable."""
        del loaded
        require_images(files)

    @staticmethod
    def decoding_options(loaded: Loaded, options: argparse.Namespace) -> dict[str, Any]:
        """Return {}: decoding images has no options."""
        del loaded, options
        return {}

    @classmethod
    def from_options(
        cls, loaded: Loaded, options: argparse.Namespace, *, batch_size: int
    ) -> "ImageCoder":
        """Make the coder of a command."""
        del options
        return cls(loaded, batch_size=batch_size)

    def encode(self, paths: Sequence[str]) -> list[Codes]:
        """Return the codes of image files."""
        return list(self._each_image(self._encode, paths))

    def require_codes(self, codes: Codes, *, where: Path) -> None:
        """Raise UserError, naming a file, unless codes are those of an image."""
        require_shape(f"the codes in {where}", codes, *self._model.grid)
        require_range(f"the codes in {where}", codes, 0, self._model.num_codes)

    def decode(self, codes: Sequence[Codes], batch: int = 0) -> list[bytes]:
        """Return a PNG file for the codes of each image of a batch."""
        del batch  # Nothing is drawn.
        stacked = np.zeros((self._batch_size, *self._model.grid), np.int32)
        stacked[: len(codes)] = codes
        images = np.asarray(self._decode(self._params, stacked))
        return [png(image) for image in images[: len(codes)]]

    def reconstruct(self, paths: Sequence[str], batch: int = 0) -> list[bytes]:
        """Return a PNG file for the reconstruction of each image."""
        del batch
        return [png(image) for image in self._each_image(self._reconstruct, paths)]

    def _each_image(self, function, paths: Sequence[str]) -> Iterator[Any]:
        return each_image(
            functools.partial(function, self._params),
            paths,
            self._model.image_shape,
            batch_size=self._batch_size,
        )


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


def each_image(
    function: Callable[[Images], Shaped[jax.Array, "B ..."]],
    paths: Sequence[str],
    image_shape: tuple[int, int, int],
    *,
    batch_size: int,
) -> Iterator[Shaped[np.ndarray, "..."]]:
    """Yield a function's result for each image file, resized, batch by batch."""
    side, _, channels = image_shape
    source = FolderSource(paths, [0] * len(paths), image_size=side, channels=channels)
    for batch in eval_batches(source, batch_size=batch_size):
        yield from np.asarray(function(batch["image"]))[batch["mask"]]


def encode(options: argparse.Namespace) -> None:
    """Write the codes of each image or recording."""
    loaded = load(options.model, "encode")
    files = _inputs(loaded, options.inputs)
    coder, fingerprint = _coder(loaded, options, files), loaded.fingerprint

    def make(paths, batch):
        del batch
        return [codes_file(codes, fingerprint) for codes in coder.encode(paths)]

    made_by = {"command": "encode", "model": fingerprint}
    _make(options, files, make, made_by=made_by, suffix=".npz")


def decode(options: argparse.Namespace) -> None:
    """Write the image or the audio of codes."""
    loaded = load(options.model, "decode")
    files = files_of(options.inputs, CODES)
    made_by = _made_by(loaded, options)
    coder, fingerprint = _coder(loaded, options, files), loaded.fingerprint
    for file in files:
        coder.require_codes(read_codes(file.path, fingerprint), where=file.path)

    def make(paths, batch):
        codes = [read_codes(Path(path), fingerprint) for path in paths]
        return coder.decode(codes, batch)

    _make(options, files, make, made_by=made_by, suffix=coder.suffix)


def reconstruct(options: argparse.Namespace) -> None:
    """Write the reconstruction of each image or recording."""
    loaded = load(options.model, "reconstruct")
    files = _inputs(loaded, options.inputs)
    made_by = _made_by(loaded, options)
    coder = _coder(loaded, options, files)
    _make(options, files, coder.reconstruct, made_by=made_by, suffix=coder.suffix)


def codes_file(codes: Codes, fingerprint: str) -> bytes:
    """Return an .npz file of codes and the fingerprint of their model."""
    smallest = np.min_scalar_type(int(codes.max(initial=0)))
    return npz(codes=codes.astype(smallest), fingerprint=np.array(fingerprint))


def read_codes(path: Path, fingerprint: str) -> Codes:
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
    return codes.astype(np.int32)


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
