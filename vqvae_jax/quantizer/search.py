"""The nearest row of a codebook: exact, in float32, a chunk of vectors at a time."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

# Distances of one chunk of vectors to one codebook take at most this many bytes: small
# enough to stay near a CPU's caches, large enough to keep a GPU's multiprocessors busy.
_CHUNK_BYTES = 1 << 24


def nearest(
    embeddings: Float[Array, "G K D"], vectors: Float[Array, "*batch G D"]
) -> Int[Array, "*batch G"]:
    """Find the row with the smallest squared distance (equation 1).

    Ties go to the lower index. Distances are float32 at the highest matmul precision
    whatever the dtype of `vectors`: in bfloat16, or with a TPU's default products,
    near codes cannot be told apart and half of a codebook goes unused. At most
    `_CHUNK_BYTES` of distances exist at a time for one codebook.
    """
    embeddings = lax.stop_gradient(embeddings).astype(jnp.float32)
    vectors = lax.stop_gradient(vectors).astype(jnp.float32)
    *batch, num_codebooks, dim = vectors.shape
    flat = jnp.moveaxis(vectors.reshape(-1, num_codebooks, dim), 1, 0)
    codes = jax.vmap(_nearest_in_one)(embeddings, flat)
    return codes.T.reshape(*batch, num_codebooks)


def _nearest_in_one(
    embeddings: Float[Array, "K D"], vectors: Float[Array, "N D"]
) -> Int[Array, " N"]:
    """Find the nearest rows in one codebook, a chunk of vectors at a time."""
    num_vectors, dim = vectors.shape
    # |z - e|^2 = |z|^2 - 2 z.e + |e|^2, where |z|^2 does not change the argmin.
    half_norms = 0.5 * jnp.sum(jnp.square(embeddings), axis=-1)

    def of_chunk(chunk: Float[Array, "n D"]) -> Int[Array, " n"]:
        products = jnp.matmul(chunk, embeddings.T, precision=lax.Precision.HIGHEST)
        return jnp.argmin(half_norms[None, :] - products, axis=-1).astype(jnp.int32)

    chunk_size = max(1, _CHUNK_BYTES // (4 * embeddings.shape[0]))
    num_chunks = -(-num_vectors // chunk_size)
    if num_chunks <= 1:
        return of_chunk(vectors)
    # Chunk j takes every num_chunks-th vector from the j-th on, not a run of them: the
    # major axis stays the batch, so arrays sharded over devices stay where they are.
    rows = -(-num_vectors // num_chunks)
    padded = jnp.pad(vectors, ((0, rows * num_chunks - num_vectors), (0, 0)))
    chunks = jnp.moveaxis(padded.reshape(rows, num_chunks, dim), 1, 0)
    return lax.map(of_chunk, chunks).T.reshape(-1)[:num_vectors]
