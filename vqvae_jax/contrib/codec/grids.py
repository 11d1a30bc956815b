"""From grids of codes to bytes and back, at the cost that the prior puts on them.

What holds where. The probabilities must be the same to the last bit when a file is
written and when it is read. `sampling.stepwise` runs the same compiled programs on the
same numbers for both, in batches whose size follows from the number of images, so that
on one machine with one version of JAX they are. Another processor, another kind of
device or another version of JAX may sum in another order; then some symbol, and all
after it, may come out wrong. The file has a hash of the codes that it was made from: if
it does not fit, `decompress` says so and returns nothing.
"""

import dataclasses
import functools
import json
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from vqvae_jax import sampling
from vqvae_jax.contrib.codec import container
from vqvae_jax.contrib.codec.container import Contents, How
from vqvae_jax.contrib.codec.stream import (
    Reader,
    Undecodable,
    Writer,
    frequencies,
    information,
)
from vqvae_jax.models.prior import Prior
from vqvae_jax.runtime.arrays import AnyArray, require_range, require_shape
from vqvae_jax.runtime.errors import UserError, require

_LARGEST_BATCH = 128
_OTHER_ARITHMETIC = (
    "the codes that come out are not those that went in: this machine or this version "
    "of JAX computes other probabilities than the one that compressed them; decompress "
    "there"
)

# Told how many more images are done.
Progress = Callable[[int], None]
# Logits of what is next, of each image -> what it is.
Exchange = Callable[[Float[np.ndarray, "n K"]], Int[np.ndarray, " n"]]


class Compressed(NamedTuple):
    """A file, and what the prior itself says of it.

    data: the file.
    bits: -log2 p(z) of all codes, labels at log2 of the number of classes each.
    """

    data: bytes
    bits: float


class Decompressed(NamedTuple):
    """What a file holds.

    codes: `[N, H, W, C]` int32.
    labels: `[N]` int32 that the prior was told; None if it was told none.
    """

    codes: Int[np.ndarray, "N H W C"]
    labels: Int[np.ndarray, " N"] | None


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Codec:
    """All that writing and reading files of one model's codes depends on.

    Attributes:
      grid: `(H, W, C)`.
      num_codes: K.
      fingerprint: of the model that the codes belong to.
      prior: p(z); None for the uniform one.
      prior_params: the prior's parameters.
    """

    grid: tuple[int, int, int]
    num_codes: int
    fingerprint: str
    prior: Prior | None = None
    prior_params: Any = None

    def compress(
        self,
        codes: Int[AnyArray, "N H W C"],
        *,
        labels: Int[AnyArray, " N"] | None = None,
        progress: Progress | None = None,
    ) -> Compressed:
        """Return a file of codes, and of the labels that the prior is told.

        Raises:
          UserError: there are no codes, they are not this model's, or labels are
            missing, not wanted or not classes.
        """
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
        in_order = _in_order(codes, labels)

        def write(logits):
            nonlocal bits
            symbols = next(in_order)
            writer.write(symbols, frequencies(logits))
            bits += information(logits, symbols)
            return symbols

        self._visit(write, len(codes), with_labels=labels is not None, told=progress)
        how = How.UNIFORM if self.prior is None else How.PRIOR
        contents = Contents(
            identity=self._identity,
            check=container.hash_of_codes(codes, labels),
            images=len(codes),
            how=how if labels is None else How.PRIOR_WITH_LABELS,
            payload=writer.getvalue(),
        )
        return Compressed(container.pack(contents), bits)

    def decompress(
        self, data: bytes, *, progress: Progress | None = None
    ) -> Decompressed:
        """Return the codes and labels of a file.

        Raises:
          UserError: it is no such file, damaged, made with another model or prior, or
            this machine's arithmetic is not that which wrote it.
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
            "the file was made with another model or another prior than this one",
        )
        reader = Reader(contents.payload)
        try:
            found = self._visit(
                lambda logits: reader.read(frequencies(logits)),
                contents.images,
                with_labels=contents.how == How.PRIOR_WITH_LABELS,
                told=progress,
            )
        except Undecodable as error:
            raise UserError(_OTHER_ARITHMETIC) from error
        except MemoryError as error:
            raise UserError(
                f"the file claims {contents.images} images, more than fit into memory"
            ) from error
        require(container.hash_of_codes(*found) == contents.check, _OTHER_ARITHMETIC)
        return found

    def images_in(self, data: bytes) -> int:
        """Return how many images a file has.

        Raises:
          UserError: it is no such file, or damaged.
        """
        return container.unpack(data).images

    @functools.cached_property
    def _identity(self) -> bytes:
        """Return the hash of all that decides the probabilities."""
        facts = {
            "fingerprint": self.fingerprint,
            "grid": self.grid,
            "num_codes": self.num_codes,
            "prior": self.prior and dataclasses.asdict(self.prior),
        }
        leaves = [np.asarray(x).tobytes() for x in jax.tree.leaves(self.prior_params)]
        return container.short_hash(json.dumps(facts).encode(), *leaves)

    def _visit(
        self,
        exchange: Exchange,
        images: int,
        *,
        with_labels: bool,
        told: Progress | None,
    ) -> Decompressed:
        """Go through labels and codes in the order of a file, and return them.

        `exchange` is given the logits of what is next, and gives what it is.
        """
        codes = np.zeros((images, *self.grid), np.int32)
        labels = np.zeros(images, np.int32) if with_labels else None
        for part, size in _batches(images):
            count = len(codes[part])
            if labels is not None:
                no_class_is_likelier = np.zeros((count, self.prior.num_classes))
                labels[part] = exchange(no_class_is_likelier)

            def respond(logits, count=count, size=size):
                return _filled(exchange(logits[:count]), size)

            of_batch = None if labels is None else _filled(labels[part], size)
            codes[part] = self._walk(respond, size, of_batch)[:count]
            if told is not None:
                told(count)
        return Decompressed(codes, labels)

    def _walk(self, respond, size: int, labels) -> Int[np.ndarray, "B H W C"]:
        shape = (size, *self.grid)
        if self.prior is None:
            no_code_is_likelier = np.zeros((size, self.num_codes))
            places = range(math.prod(self.grid))
            codes = [respond(no_code_is_likelier) for _ in places]
            return np.stack(codes, axis=-1).reshape(shape)
        return sampling.stepwise(
            self.prior.network,
            self.prior_params,
            respond,
            shape=shape,
            condition=self.prior.condition(size, labels),
        )


def _in_order(
    codes: Int[np.ndarray, "N H W C"], labels: Int[np.ndarray, " N"] | None
) -> Iterator[Int[np.ndarray, " _"]]:
    """Yield what a file holds: of each batch labels, then the codes of each place."""
    for part, _ in _batches(len(codes)):
        if labels is not None:
            yield labels[part]
        yield from codes[part].reshape(len(codes[part]), -1).T


def _batches(images: int) -> Iterator[tuple[slice, int]]:
    """Yield the images of each batch, and the size of all batches."""
    size = min(_LARGEST_BATCH, 1 << (images - 1).bit_length())
    for start in range(0, images, size):
        yield slice(start, start + size), size


def _filled(values: Int[np.ndarray, " n"], size: int) -> Int[np.ndarray, " size"]:
    """Append zeros: the places of a batch beyond the last image."""
    return np.pad(values, (0, size - len(values)))
