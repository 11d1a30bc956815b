"""Compress grids of codes to bytes, at the cost that the prior assigns, and back.

Portability: the probabilities must be identical to the last bit when a file is written
and when it is read. For both, `sampling.stepwise` runs the same compiled programs on
the same numbers, in batches whose size depends only on the number of images, so they
are identical on one machine with one version of JAX. Another processor, kind of device
or version of JAX can sum in another order; a symbol and all symbols after it can then
be decoded wrong. The file contains a hash of the original codes, and `decompress`
raises if the decoded codes do not match it.
"""

import dataclasses
import functools
import itertools
import json
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from vqvae_jax import options, sampling
from vqvae_jax.contrib.codec import container
from vqvae_jax.contrib.codec.container import Contents, How
from vqvae_jax.contrib.codec.stream import (
    Reader,
    Undecodable,
    Writer,
    capacity,
    fewest_bits,
    frequencies,
    information,
)
from vqvae_jax.contrib.codec.windows import Size, Windows
from vqvae_jax.models.prior import Prior
from vqvae_jax.runtime.arrays import AnyArray, require_range, require_shape
from vqvae_jax.runtime.checksums import short_sha256
from vqvae_jax.runtime.errors import UserError, require

_LARGEST_BATCH = 128
# The logit of a code of probability 0, next to 0.
_IMPOSSIBLE = -1e4
_MISMATCH = (
    "the decoded codes do not match the original ones: this machine or version of JAX "
    "computes different probabilities than the one that compressed the file; "
    "decompress it there"
)

# Called with the number of grids that were completed since the last call.
Progress = Callable[[int], None]
# Maps the logits of the next symbol of each grid to that symbol.
Exchange = Callable[[Float[np.ndarray, "n K"]], Int[np.ndarray, " n"]]


class Compressed(NamedTuple):
    """A file, and the information content of its codes under the prior.

    data: bytes of the file.
    bits: -log2 p(z) of all codes, plus log2 of the number of classes per label.
    """

    data: bytes
    bits: float


class Decompressed(NamedTuple):
    """The contents of a file.

    codes: int32, `[N, H, W, C]`; a list of `[h, w, C]` if the file has sizes.
    labels: int32; None if the prior was not conditioned on labels.
    sizes: `(height, width)` of each image in pixels; None if all have the model's.
    """

    codes: Int[np.ndarray, "N H W C"] | list[Int[np.ndarray, "_ _ C"]]
    labels: Int[np.ndarray, " N"] | None
    sizes: tuple[Size, ...] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Codec:
    """Compress and decompress the codes of one model.

    Attributes:
      grid: shape `(H, W, C)` of the codes of an image.
      num_codes: K >= 2, number of categories of a code.
      fingerprint: fingerprint of the model that the codes belong to.
      stride: pixels of a cell's side, for images of other sizes than the model's.
      prior: p(z); None for the uniform prior.
      prior_params: parameters of the prior.
    """

    grid: tuple[int, int, int]
    num_codes: int
    fingerprint: str
    stride: int = 1
    prior: Prior | None = None
    prior_params: Any = None

    def __post_init__(self) -> None:
        """Raise UserError if there is only one code.

        A file could then claim any number of images.
        """
        require(
            self.num_codes >= 2,
            "the model has one code, which carries no information to compress",
        )

    def compress(
        self,
        codes: Int[AnyArray, "N H W C"] | Sequence[Int[AnyArray, "_ _ C"]],
        *,
        labels: Int[AnyArray, " N"] | None = None,
        sizes: Sequence[Size] | None = None,
        progress: Progress | None = None,
    ) -> Compressed:
        """Compress codes, and the labels that the prior is conditioned on.

        Args:
          codes: codes of the images, `[N, H, W, C]`, or with `sizes` any `[h, w, C]`,
            which are coded in windows of the prior's grid.
          labels: classes of the images, required if the prior needs labels.
          sizes: `(height, width)` of each image in pixels.
          progress: called with the number of grids completed since the last call.

        Raises:
          UserError: there are no codes, codes or labels are out of range or have the
            wrong shape, or labels are missing or unexpected.
        """
        if sizes is None:
            windows = self._windows_of_own_size(len(codes))
            return self._compress(codes, labels, windows, (), progress)
        windows = Windows.of(
            [(int(height), int(width)) for height, width in sizes],
            grid=self.grid,
            stride=self.stride,
        )
        require(
            len(codes) == windows.num_images,
            f"there are {len(codes)} grids of codes and {windows.num_images} sizes",
        )
        for grid, size in zip(codes, windows.sizes, strict=True):
            require_shape("codes", grid, *windows.cells(size), self.grid[2])
            require(
                max(size) <= container.MAX_SIDE,
                f"a side of {max(size)} pixels is longer than {container.MAX_SIDE}",
            )
        require(len(codes) > 0, "there are no codes to compress")
        if labels is not None:
            require_shape("labels", labels, len(codes))
            labels = np.repeat(
                np.asarray(labels), list(map(windows.windows_of, windows.sizes))
            )
        split = windows.split([np.asarray(grid) for grid in codes])
        return self._compress(split, labels, windows, windows.runs, progress)

    def _compress(self, codes, labels, windows, runs, progress) -> Compressed:
        """Compress the cells inside of windows; the file states these runs."""
        codes = np.asarray(codes)
        require(
            np.issubdtype(codes.dtype, np.integer),
            f"codes must be integers, got {codes.dtype}",
        )
        require_shape("codes", codes, "N", *self.grid)
        require_range("codes", codes, 0, self.num_codes)
        codes = codes.astype(np.int32)
        require(len(codes) > 0, "there are no codes to compress")
        if labels is not None:
            require(self.prior is not None, "labels were given, but there is no prior")
            labels = np.asarray(labels, np.int32)
        if self.prior is not None:
            self.prior.condition(len(codes), labels)
        writer, bits = Writer(), 0.0
        symbols_in_order = _symbols_in_order(codes, labels, windows)

        def write(logits):
            nonlocal bits
            symbols = next(symbols_in_order)
            writer.write(symbols, frequencies(logits))
            bits += information(logits, symbols)
            return symbols

        self._visit(
            write,
            len(codes),
            windows,
            with_labels=labels is not None,
            progress=progress,
        )
        how = How.UNIFORM if self.prior is None else How.PRIOR
        contents = Contents(
            identity=self._identity,
            check=container.hash_of_codes(codes, labels),
            grids=len(codes),
            how=how if labels is None else How.PRIOR_WITH_LABELS,
            payload=writer.getvalue(),
            runs=runs,
        )
        return Compressed(container.pack(contents), bits)

    def decompress(
        self, data: bytes, *, progress: Progress | None = None
    ) -> Decompressed:
        """Decompress the codes and labels of a file.

        Args:
          data: bytes of the file.
          progress: called with the number of grids completed since the last call.

        Raises:
          UserError: the data has another format, is damaged, was compressed with
            another model or prior, or this machine computes other probabilities.
        """
        contents = container.unpack(data)
        if contents.how == How.UNIFORM and self.prior is not None:
            uniform = dataclasses.replace(self, prior=None, prior_params=None)
            return uniform.decompress(data, progress=progress)
        require(
            contents.how == How.UNIFORM or self.prior is not None,
            "the file was made with a learned prior, and this model has none: train it",
        )
        require(
            contents.identity == self._identity,
            "the file was made with another model or another prior: use that model",
        )
        has_labels = contents.how == How.PRIOR_WITH_LABELS
        require(
            not has_labels or self.prior.num_classes > 0,
            "the file has labels, and the prior has none: use that model",
        )
        windows = self._windows_of_own_size(contents.grids)
        if contents.runs:
            windows = Windows(self.grid, self.stride, contents.runs)
            require(
                contents.grids == windows.num_windows,
                f"the file claims {contents.grids} grids for images of "
                f"{windows.num_windows}: compress the images again",
            )
        self._require_room(contents, windows)
        reader = Reader(contents.payload)
        try:
            found = self._visit(
                lambda logits: reader.read(frequencies(logits)),
                contents.grids,
                windows,
                with_labels=has_labels,
                progress=progress,
            )
        except Undecodable as error:
            raise UserError(_MISMATCH) from error
        require(container.hash_of_codes(*found) == contents.check, _MISMATCH)
        codes, labels = found
        if not contents.runs:
            return Decompressed(codes, labels)
        sizes = tuple(windows.sizes)
        if labels is not None:
            counts = list(map(windows.windows_of, sizes))
            labels = labels[np.cumsum([0, *counts[:-1]])]
        return Decompressed(windows.join(codes), labels, sizes)

    def grids_in(self, data: bytes) -> int:
        """Return the number of grids of codes in a file.

        Raises:
          UserError: the data has another format, or is damaged.
        """
        return container.unpack(data).grids

    def _windows_of_own_size(self, count: int) -> Windows:
        """Return the windows of images of the model's size: one each."""
        size = self.stride * self.grid[0], self.stride * self.grid[1]
        return Windows(self.grid, self.stride, ((count, size),))

    def _require_room(self, contents: Contents, windows: Windows) -> None:
        """Raise UserError if the payload cannot hold what the header claims.

        A prior may assign almost 1 to a code, which then takes 24 - log2(2^24 - K + 1)
        bits. It is 4.4e-5 for K = 512, so that a few bytes may hold many images.
        """
        logits = np.zeros((1, self.num_codes))
        if contents.how != How.UNIFORM:
            logits[0, 1:] = _IMPOSSIBLE
        of_code, of_label = fewest_bits(frequencies(logits)), 0.0
        if contents.how == How.PRIOR_WITH_LABELS:
            labels = np.zeros((1, self.prior.num_classes))
            of_label = fewest_bits(frequencies(labels))
        room, payload = capacity(len(contents.payload)), len(contents.payload)
        if contents.runs:
            codes = windows.num_codes
            require(
                codes * of_code + contents.grids * of_label <= room,
                f"the file claims images of {codes} codes, more than its {payload} "
                "bytes of codes can hold: compress the images again",
            )
            return
        most = int(room / (math.prod(self.grid) * of_code + of_label))
        require(
            contents.grids <= most,
            f"the file claims {contents.grids} images, and its {payload} bytes of "
            f"codes can hold {most} at most: compress the images again",
        )

    @functools.cached_property
    def _identity(self) -> bytes:
        """Return the hash of everything that determines the probabilities."""
        facts = {
            "fingerprint": self.fingerprint,
            "grid": self.grid,
            "num_codes": self.num_codes,
            "prior": self.prior and options.as_dict(self.prior),
        }
        leaves = [np.asarray(x).tobytes() for x in jax.tree.leaves(self.prior_params)]
        facts_bytes = json.dumps(facts).encode()
        return short_sha256(facts_bytes, *leaves, size=container.HASH_BYTES)

    def _visit(
        self,
        exchange: Exchange,
        grids: int,
        windows: Windows,
        *,
        with_labels: bool,
        progress: Progress | None,
    ) -> tuple[Int[np.ndarray, "N H W C"], Int[np.ndarray, " N"] | None]:
        """Exchange logits for symbols in file order; return the codes and labels.

        `exchange` writes or reads the next symbols, given their logits.
        """
        codes, labels = [], []
        per_cell, masks = self.grid[2], windows.masks()
        for part, size in _batches(grids):
            count = min(grids, part.stop) - part.start
            coded = _coded(masks, count, per_cell)
            batch_labels = None
            if with_labels:
                labels.append(exchange(np.zeros((count, self.prior.num_classes))))
                batch_labels = _zero_padded(labels[-1], size)

            def respond(logits, count=count, size=size, coded=coded):
                here, symbols = next(coded), np.zeros(size, np.int32)
                if here.any():
                    symbols[:count][here] = exchange(logits[:count][here])
                return symbols

            codes.append(self._visit_batch(respond, size, batch_labels)[:count])
            if progress is not None:
                progress(count)
        return (
            np.concatenate(codes, dtype=np.int32),
            np.concatenate(labels, dtype=np.int32) if with_labels else None,
        )

    def _visit_batch(self, respond, size: int, labels) -> Int[np.ndarray, "B H W C"]:
        shape = (size, *self.grid)
        if self.prior is None:
            uniform_logits = np.zeros((size, self.num_codes))
            codes = [respond(uniform_logits) for _ in range(math.prod(self.grid))]
            return np.stack(codes, axis=-1).reshape(shape)
        return sampling.stepwise(
            self.prior.pixelcnn,
            self.prior_params,
            respond,
            shape=shape,
            condition=self.prior.condition(size, labels),
        )


def _symbols_in_order(
    codes: Int[np.ndarray, "N H W C"],
    labels: Int[np.ndarray, " N"] | None,
    windows: Windows,
) -> Iterator[Int[np.ndarray, " _"]]:
    """Yield symbols in file order: per batch its labels, then codes by position."""
    masks = windows.masks()
    for part, _ in _batches(len(codes)):
        batch = codes[part]
        if labels is not None:
            yield labels[part]
        positions = batch.reshape(len(batch), -1).T
        coded = _coded(masks, len(batch), codes.shape[-1])
        for position, here in zip(positions, coded, strict=True):
            if here.any():
                yield position[here]


def _coded(
    masks: Iterator[Bool[np.ndarray, "H W"]], count: int, per_cell: int
) -> Iterator[Bool[np.ndarray, " n"]]:
    """Yield for each position of the next windows in which of them it is coded."""
    cells = np.stack([mask.reshape(-1) for mask in itertools.islice(masks, count)])
    for here in cells.T:
        yield from itertools.repeat(here, per_cell)


def _batches(grids: int) -> Iterator[tuple[slice, int]]:
    """Yield the slice of grids in each batch, and the padded batch size."""
    size = min(_LARGEST_BATCH, 1 << (grids - 1).bit_length())
    for start in range(0, grids, size):
        yield slice(start, start + size), size


def _zero_padded(values: Int[np.ndarray, " n"], size: int) -> Int[np.ndarray, " size"]:
    """Pad the last, smaller batch with zeros."""
    return np.pad(values, (0, size - len(values)))
