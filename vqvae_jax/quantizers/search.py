"""The nearest row of a codebook: exact, in float32, a tile of distances at a time."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from vqvae_jax.quantizers.platforms import for_platform


class _Tile(NamedTuple):
    """How many distances of one codebook exist at a time.

    codes: at most so many rows of the codebook.
    bytes: of distances, to as many vectors as fit.
    """

    codes: int
    bytes: int


# A CPU's core keeps them in its cache between the product and the minimum; a GPU's
# multiprocessors want more to do at a time.
_CPU_TILE = _Tile(codes=512, bytes=1 << 20)
_TILE = _Tile(codes=8192, bytes=1 << 24)


# A program of its own: outside of jit each call would trace and compile anew.
@jax.jit
def nearest(
    embeddings: Float[Array, "G K D"], vectors: Float[Array, "*batch G D"]
) -> Int[Array, "*batch G"]:
    """Find the row with the smallest squared distance (equation 1).

    Ties go to the lower index. Distances are float32 at the highest matmul precision
    whatever the dtype of `vectors`: in bfloat16, or with a TPU's default products,
    near codes cannot be told apart and half of a codebook goes unused. At most 16 MiB
    of distances exist at a time for one codebook, however large it is; under vmap, as
    much for each of what is mapped, so a batch of vectors is better passed whole.
    """
    embeddings = lax.stop_gradient(embeddings).astype(jnp.float32)
    vectors = lax.stop_gradient(vectors).astype(jnp.float32)
    *batch, num_codebooks, dim = vectors.shape
    flat = jnp.moveaxis(vectors.reshape(-1, num_codebooks, dim), 1, 0)
    codes = for_platform(
        embeddings, flat, cpu=_nearest_on_cpu, default=_nearest_elsewhere
    )
    return codes.T.reshape(*batch, num_codebooks)


def _nearest_on_cpu(embeddings, flat):
    """Search one codebook after the other: the tiles of two do not fit the cache."""
    search = functools.partial(_nearest_in_one, least=_two_minima, tile=_CPU_TILE)
    return lax.map(lambda one: search(*one), (embeddings, flat))


def _nearest_elsewhere(embeddings, flat):
    search = functools.partial(_nearest_in_one, least=_argmin, tile=_TILE)
    return jax.vmap(search)(embeddings, flat)


def _nearest_in_one(
    embeddings: Float[Array, "K D"],
    vectors: Float[Array, "N D"],
    *,
    least: Callable,
    tile: _Tile,
) -> Int[Array, " N"]:
    """Find the nearest rows in one codebook, a chunk of vectors at a time."""
    num_vectors, num_codes = len(vectors), len(embeddings)
    # What all rows have in common would leave few digits for what tells them apart.
    centre = _centre(embeddings)
    embeddings = embeddings - centre
    # |z - e|^2 = |z|^2 - 2 z.e + |e|^2, where |z|^2 does not change the argmin.
    half_norms = 0.5 * jnp.sum(jnp.square(embeddings), axis=-1)
    # A block or chunk takes every n-th row from one on, not a run of them: the major
    # axis stays what it was, so arrays sharded over devices stay where they are.
    num_blocks = -(-num_codes // tile.codes)
    # What fills up the last block is infinitely far away.
    blocks = (
        _every_nth(embeddings, num_blocks),
        _every_nth(half_norms, num_blocks, fill=jnp.inf),
    )

    def of_chunk(chunk: Float[Array, "n D"]) -> Int[Array, " n"]:
        chunk = chunk - centre
        distances, places = lax.map(lambda block: least(*block, chunk), blocks)
        block = jnp.arange(num_blocks, dtype=jnp.int32)[:, None]
        codes = places * num_blocks + block
        is_least = distances == distances.min(axis=0, keepdims=True)
        return jnp.min(jnp.where(is_least, codes, num_codes - 1), axis=0)

    chunk_size = max(1, tile.bytes // (4 * min(num_codes, tile.codes)))
    num_chunks = -(-num_vectors // chunk_size)
    if num_chunks <= 1:
        return of_chunk(vectors)
    codes = lax.map(of_chunk, _every_nth(vectors, num_chunks))
    return codes.T.reshape(-1)[:num_vectors]


def _centre(embeddings: Float[Array, "K D"]) -> Float[Array, "1 D"]:
    """Return the rows' mean where most rows are nearer to it than to zero, else zero.

    One row far away draws the mean out of the midst of all others.
    """
    mean = embeddings.mean(axis=0, keepdims=True)
    to_mean = jnp.sum(jnp.square(embeddings - mean), axis=-1)
    is_nearer = to_mean < jnp.sum(jnp.square(embeddings), axis=-1)
    return jnp.where(is_nearer.mean() > 0.5, mean, 0.0)


def _every_nth(x: Float[Array, "rows ..."], n: int, *, fill: float = 0.0):
    """Cut rows into `[n, ceil(rows / n), ...]`: j, j + n, ..., filled up at the end."""
    length = -(-len(x) // n)
    padding = ((0, length * n - len(x)), *((0, 0) for _ in x.shape[1:]))
    padded = jnp.pad(x, padding, constant_values=fill)
    return jnp.moveaxis(padded.reshape(length, n, *x.shape[1:]), 1, 0)


def _argmin(rows, half_norms, chunk: Float[Array, "n D"]):
    """Return the least distance and its row's place, `[n]` each."""
    products = jnp.matmul(chunk, rows.T, precision=lax.Precision.HIGHEST)
    distances = half_norms[None, :] - products
    place = jnp.argmin(distances, axis=-1).astype(jnp.int32)
    return jnp.min(distances, axis=-1), place


def _two_minima(rows, half_norms, chunk: Float[Array, "n D"]):
    """Return what `_argmin` does, by the least distance and then the first place of it.

    A CPU takes both minima of many vectors at once, while an argmin, whose comparisons
    carry places along, goes one by one.
    """
    products = jnp.matmul(rows, chunk.T, precision=lax.Precision.HIGHEST)
    distances = half_norms[:, None] - products
    least = jnp.min(distances, axis=0)
    places = jnp.arange(len(rows), dtype=jnp.int32)[:, None]
    is_least = distances == least[None, :]
    return least, jnp.min(jnp.where(is_least, places, len(rows) - 1), axis=0)
