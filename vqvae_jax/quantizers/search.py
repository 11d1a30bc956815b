"""Nearest-row search in float32, a tile of distances at a time."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from vqvae_jax.quantizers.primitives import for_platform


class _Tile(NamedTuple):
    """The size of a tile of distances of one codebook.

    codes: maximum number of rows of the codebook.
    bytes: maximum size of the distances, which limits the number of vectors.
    """

    codes: int
    bytes: int


# A CPU tile stays in the cache between the product and the minimum; a GPU needs more
# work at a time.
_CPU_TILE = _Tile(codes=512, bytes=1 << 20)
_TILE = _Tile(codes=8192, bytes=1 << 24)


# Jitted, so that calls outside of jit are not traced and compiled each time.
@jax.jit
def nearest(
    embeddings: Float[Array, "G K D"], vectors: Float[Array, "*batch G D"]
) -> Int[Array, "*batch G"]:
    """Return the index of the row with the smallest squared distance (equation 1).

    Ties go to the lower index. A row that is not finite, or longer than 1e19, is never
    returned while there is another one; a vector that is not finite gets any code.

    Distances are computed from products, not differences. With rows and vectors taken
    from the rows' mean, where that is near most of them, the squared distance of the
    returned row is the smallest up to a rounding of about `1e-6 (|z|^2 + |e|^2)`, for D
    of about a hundred. It matters where rows are much nearer to each other than to
    their mean: two clusters at 1000 and -1000, for example, whose rows are 1 apart in
    each feature. Scale such data.

    Distances are float32 at the highest matmul precision whatever the dtype of
    `vectors`: with bfloat16, or a TPU's default precision, near codes cannot be
    distinguished and half of a codebook goes unused. At most 16 MiB of distances exist
    at a time for one codebook of any size. Under vmap this is the memory of each mapped
    element: pass a batch of vectors whole instead.
    """
    embeddings = lax.stop_gradient(embeddings).astype(jnp.float32)
    vectors = lax.stop_gradient(vectors).astype(jnp.float32)
    *batch, num_codebooks, dim = vectors.shape
    flat = jnp.moveaxis(vectors.reshape(-1, num_codebooks, dim), 1, 0)
    codes = for_platform(
        embeddings, flat, cpu=_search_on_cpu, default=_search_on_accelerator
    )
    return codes.T.reshape(*batch, num_codebooks)


def _search_on_cpu(embeddings, flat):
    """Search one codebook after the other: two tiles do not fit the cache."""
    search = functools.partial(
        _search_codebook, find_minimum=_two_minima, tile=_CPU_TILE
    )
    return lax.map(lambda args: search(*args), (embeddings, flat))


def _search_on_accelerator(embeddings, flat):
    search = functools.partial(_search_codebook, find_minimum=_argmin, tile=_TILE)
    return jax.vmap(search)(embeddings, flat)


def _search_codebook(
    embeddings: Float[Array, "K D"],
    vectors: Float[Array, "N D"],
    *,
    find_minimum: Callable,
    tile: _Tile,
) -> Int[Array, " N"]:
    """Return the nearest rows in one codebook, a chunk of vectors at a time."""
    num_vectors, num_codes = len(vectors), len(embeddings)
    is_far = ~_has_norm(embeddings)
    embeddings = jnp.where(is_far[:, None], 0.0, embeddings)
    # A large common offset of all rows would cost the digits that distinguish them.
    centre = centre_of(embeddings)
    embeddings = embeddings - centre
    # |z - e|^2 = |z|^2 - 2 z.e + |e|^2, where |z|^2 does not change the argmin.
    half_norms = 0.5 * jnp.sum(jnp.square(embeddings), axis=-1)
    half_norms = jnp.where(is_far, jnp.inf, half_norms)
    # A block or chunk takes every n-th row, not consecutive ones: the major axis is
    # kept, so arrays sharded over devices are not moved.
    num_blocks = -(-num_codes // tile.codes)
    # Padding of the last block is infinitely far away.
    blocks = (
        every_nth(embeddings, num_blocks),
        every_nth(half_norms, num_blocks, fill=jnp.inf),
    )

    def search_chunk(chunk: Float[Array, "n D"]) -> Int[Array, " n"]:
        chunk = chunk - centre
        distances, indices = lax.map(lambda block: find_minimum(*block, chunk), blocks)
        block = jnp.arange(num_blocks, dtype=jnp.int32)[:, None]
        codes = indices * num_blocks + block
        is_minimum = distances == distances.min(axis=0, keepdims=True)
        return jnp.min(jnp.where(is_minimum, codes, num_codes - 1), axis=0)

    chunk_size = max(1, tile.bytes // (4 * min(num_codes, tile.codes)))
    num_chunks = -(-num_vectors // chunk_size)
    if num_chunks <= 1:
        return search_chunk(vectors)
    codes = lax.map(search_chunk, every_nth(vectors, num_chunks))
    return codes.T.reshape(-1)[:num_vectors]


def _has_norm(embeddings: Float[Array, "K D"]) -> Bool[Array, " K"]:
    """Return whether a row's squared norm is finite: that of NaN or 1e20 is not."""
    return jnp.isfinite(jnp.sum(jnp.square(embeddings), axis=-1))


def centre_of(embeddings: Float[Array, "K D"]) -> Float[Array, "1 D"]:
    """Return the rows' mean if most rows are nearer to it than to zero, else zero.

    A single outlier moves the mean away from all other rows.
    """
    mean = embeddings.mean(axis=0, keepdims=True)
    to_mean = jnp.sum(jnp.square(embeddings - mean), axis=-1)
    is_nearer = to_mean < jnp.sum(jnp.square(embeddings), axis=-1)
    return jnp.where(is_nearer.mean() > 0.5, mean, 0.0)


def every_nth(x: Float[Array, "rows ..."], n: int, *, fill: float = 0.0):
    """Split rows into `[n, ceil(rows / n), ...]`: j, j + n, ..., padded at the end."""
    length = -(-len(x) // n)
    padding = ((0, length * n - len(x)), *((0, 0) for _ in x.shape[1:]))
    padded = jnp.pad(x, padding, constant_values=fill)
    return jnp.moveaxis(padded.reshape(length, n, *x.shape[1:]), 1, 0)


def _argmin(rows, half_norms, chunk: Float[Array, "n D"]):
    """Return the smallest distance and its row's index, `[n]` each."""
    products = jnp.matmul(chunk, rows.T, precision=lax.Precision.HIGHEST)
    distances = half_norms[None, :] - products
    indices = jnp.argmin(distances, axis=-1).astype(jnp.int32)
    return jnp.min(distances, axis=-1), indices


def _two_minima(rows, half_norms, chunk: Float[Array, "n D"]):
    """Return what `_argmin` does, as the smallest distance and its first index.

    Two minima vectorise on a CPU; an argmin, which carries indices along, does not.
    """
    products = jnp.matmul(rows, chunk.T, precision=lax.Precision.HIGHEST)
    distances = half_norms[:, None] - products
    minimum = jnp.min(distances, axis=0)
    indices = jnp.arange(len(rows), dtype=jnp.int32)[:, None]
    is_minimum = distances == minimum[None, :]
    first = jnp.min(jnp.where(is_minimum, indices, len(rows) - 1), axis=0)
    return minimum, first
