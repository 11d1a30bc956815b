"""Vector quantization: pure functions on arrays that depend on JAX alone.

The symbols are the paper's (van den Oord et al., 2017, section 3): an encoder's output
z_e(x) is replaced by the nearest row e_k of a codebook. G codebooks quantize G
consecutive groups of D channels; G = 1 is the paper's plain case.

    codebook = init(key, num_codes=512, dim=64)
    out = quantize(codebook, z_e)                  # straight-through, with both losses
    codebook = ema_update(codebook, z_e, out.codes)   # appendix A.1, instead of a loss

Every function works under jit, vmap, grad, scan, pmap and shard_map. Nothing here makes
a one-hot matrix or an N x K x D tensor: rows are gathered, and sums are segment sums.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

# Distances of one chunk of vectors to one codebook take at most this many bytes: small
# enough to stay near a CPU's caches, large enough to keep a GPU's multiprocessors busy.
_CHUNK_BYTES = 1 << 24

# An EMA count below this means that a code has not been used for thousands of updates;
# m / N would divide two numbers that are about to leave float32's range.
_SMALLEST_COUNT = 1e-8


class Codebook(NamedTuple):
    """The embedding tables and the running statistics of the EMA variant.

    embeddings: `[G, K, D]` float32, the rows e_k of each of the G codebooks.
    counts: `[G, K]` float32, N_i of equation 6, how often each code was used lately.
    sums: `[G, K, D]` float32, m_i of equation 7: e_i = m_i / N_i.
    """

    embeddings: Float[Array, "G K D"]
    counts: Float[Array, "G K"]
    sums: Float[Array, "G K D"]


class Quantized(NamedTuple):
    """What `quantize` returns.

    z_q: `[..., G*D]`, equal to the nearest rows; its gradient goes straight to z_e.
    codes: `[..., G]` int32, the nearest rows' indices (equation 1).
    codebook_loss: `[..., G]`, |sg[z_e] - e|^2, the second term of equation 3. The norm
      sums over D; average it over the N latents. Its gradient reaches the codebook
      only.
    commitment_loss: `[..., G]`, |z_e - sg[e]|^2, the third term without its beta. Its
      gradient reaches z_e only.
    """

    z_q: Float[Array, "*batch GD"]
    codes: Int[Array, "*batch G"]
    codebook_loss: Float[Array, "*batch G"]
    commitment_loss: Float[Array, "*batch G"]


def init(
    key: PRNGKeyArray, *, num_codes: int, dim: int, num_codebooks: int = 1
) -> Codebook:
    """Draw a codebook uniformly from [-1/K, 1/K].

    Counts start at 1 and sums at the embeddings, so that the first EMA updates pull
    codes towards data instead of dividing by zero.

    Returns a `Codebook` with G = `num_codebooks`, K = `num_codes`, D = `dim`.
    """
    if min(num_codes, dim, num_codebooks) < 1:
        raise ValueError(
            "num_codes, dim and num_codebooks must be at least 1, got "
            f"{num_codes}, {dim} and {num_codebooks}"
        )
    shape = (num_codebooks, num_codes, dim)
    bound = 1.0 / num_codes
    return from_embeddings(
        jax.random.uniform(key, shape, jnp.float32, minval=-bound, maxval=bound)
    )


def from_embeddings(embeddings: Float[Array, "G K D"]) -> Codebook:
    """Make a codebook of given rows, each counted as used once."""
    embeddings = embeddings.astype(jnp.float32)
    return Codebook(embeddings, jnp.ones(embeddings.shape[:-1]), embeddings)


def quantize(
    codebook: Codebook,
    z_e: Float[Array, "*batch GD"],
    mask: Bool[Array, "*batch"] | None = None,
) -> Quantized:
    """Replace each vector by the nearest row of its codebook (equations 1 and 2).

    Args:
      codebook: G tables of K rows of D numbers.
      z_e: `[..., G*D]`, any float dtype; distances and losses are float32.
      mask: `[...]`, False at padding, whose losses are then 0 (its codes are still the
        nearest ones).

    Raises:
      ValueError: the last axis of z_e is not G*D.
    """
    vectors = _split_groups(codebook, z_e)
    codes = nearest(codebook.embeddings, vectors)
    rows = _gather(codebook.embeddings, codes)
    codebook_loss = _squared_norm(lax.stop_gradient(vectors) - rows)
    commitment_loss = _squared_norm(vectors - lax.stop_gradient(rows))
    if mask is not None:
        codebook_loss = jnp.where(mask[..., None], codebook_loss, 0.0)
        commitment_loss = jnp.where(mask[..., None], commitment_loss, 0.0)
    z_q = lax.stop_gradient(rows).reshape(z_e.shape).astype(z_e.dtype)
    # z_e - sg[z_e] is exactly 0, so z_q stays equal to the rows to the last bit.
    z_q = z_q + (z_e - lax.stop_gradient(z_e))
    return Quantized(z_q, codes, codebook_loss, commitment_loss)


def lookup(
    codebook: Codebook, codes: Int[Array, "*batch G"]
) -> Float[Array, "*batch GD"]:
    """Return the rows that codes stand for, `[..., G]` -> `[..., G*D]` float32.

    Raises:
      ValueError: the last axis of codes is not the codebooks.
    """
    num_codebooks = codebook.embeddings.shape[0]
    if codes.shape[-1] != num_codebooks:
        raise ValueError(
            f"the last axis of codes must be the {num_codebooks} codebooks, but their "
            f"shape is {codes.shape}"
        )
    rows = _gather(codebook.embeddings, codes)
    return rows.reshape(*codes.shape[:-1], -1)


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


def ema_update(
    codebook: Codebook,
    z_e: Float[Array, "*batch GD"],
    codes: Int[Array, "*batch G"],
    *,
    decay: float = 0.99,
    mask: Bool[Array, "*batch"] | None = None,
    axis_name: str | tuple[str, ...] | None = None,
) -> Codebook:
    """Move each code towards the mean of its vectors (appendix A.1, equations 6 to 8).

    Args:
      codebook: the codebook before the update.
      z_e: `[..., G*D]`, the vectors that were quantized.
      codes: `[..., G]`, their codes.
      decay: gamma; the paper uses 0.99.
      mask: `[...]`, False at padding, which then changes nothing.
      axis_name: the mapped axes of a pmap, vmap or shard_map to sum the statistics
        over, so that all devices keep the same codebook. Under jit with sharded arrays
        leave it out: there a sum already is the sum over all devices.
    """
    n = usage(codes, num_codes=codebook.counts.shape[1], mask=mask)
    z = _sum_by_code(codebook, z_e, codes, mask)
    if axis_name is not None:
        n, z = lax.psum((n, z), axis_name)
    counts = decay * codebook.counts + (1 - decay) * n
    sums = decay * codebook.sums + (1 - decay) * z
    alive = counts > _SMALLEST_COUNT
    means = sums / jnp.where(alive, counts, 1.0)[..., None]
    embeddings = jnp.where(alive[..., None], means, codebook.embeddings)
    sums = jnp.where(alive[..., None], sums, embeddings * counts[..., None])
    return Codebook(embeddings, counts, sums)


def count_update(
    codebook: Codebook,
    codes: Int[Array, "*batch G"],
    *,
    decay: float = 0.99,
    mask: Bool[Array, "*batch"] | None = None,
    axis_name: str | tuple[str, ...] | None = None,
) -> Codebook:
    """Keep the counts current while a loss, not the EMA, moves the embeddings.

    Takes the arguments of `ema_update`; `restart` then knows the dead codes.
    """
    n = usage(codes, num_codes=codebook.counts.shape[1], mask=mask)
    if axis_name is not None:
        n = lax.psum(n, axis_name)
    counts = decay * codebook.counts + (1 - decay) * n
    return Codebook(
        codebook.embeddings, counts, codebook.embeddings * counts[..., None]
    )


def kmeans(
    key: PRNGKeyArray,
    codebook: Codebook,
    z_e: Float[Array, "*batch GD"],
    *,
    iterations: int = 10,
    mask: Bool[Array, "*batch"] | None = None,
    axis_name: str | tuple[str, ...] | None = None,
) -> Codebook:
    """Fit the rows to data by Lloyd's iterations, from randomly drawn vectors.

    A cluster that loses all its vectors is put on a newly drawn one. The result counts
    each code once with its mean as its sum, so that the next EMA update keeps norms.

    Args:
      key: draws the starting vectors.
      codebook: gives the sizes; its values are replaced.
      z_e: `[..., G*D]`, the data; fewer vectors than codes are allowed.
      iterations: how often means are taken.
      mask: `[...]`, False at padding.
      axis_name: as in `ema_update`.
    """
    num_codes = codebook.counts.shape[1]
    start_key, empty_key = jax.random.split(key)
    draw = _vector_drawer(codebook, z_e, mask, axis_name)
    codebook = from_embeddings(draw(start_key))

    def lloyd(codebook: Codebook, key: PRNGKeyArray) -> tuple[Codebook, None]:
        codes = nearest(codebook.embeddings, _split_groups(codebook, z_e))
        n = usage(codes, num_codes=num_codes, mask=mask)
        z = _sum_by_code(codebook, z_e, codes, mask)
        if axis_name is not None:
            n, z = lax.psum((n, z), axis_name)
        means = z / jnp.maximum(n, 1.0)[..., None]
        rows = jnp.where((n > 0)[..., None], means, draw(key))
        return from_embeddings(rows), None

    return lax.scan(lloyd, codebook, jax.random.split(empty_key, iterations))[0]


def restart(
    key: PRNGKeyArray,
    codebook: Codebook,
    z_e: Float[Array, "*batch GD"],
    *,
    min_count: float = 0.01,
    mask: Bool[Array, "*batch"] | None = None,
    axis_name: str | tuple[str, ...] | None = None,
) -> Codebook:
    """Put dead codes, those with a count below `min_count`, on randomly drawn vectors.

    Their counts and sums restart too, else the next EMA update would undo it.

    Args:
      key: draws the vectors.
      codebook: the codebook after an `ema_update` or `count_update`.
      z_e: `[..., G*D]`, vectors to draw from.
      min_count: the smallest running count of a living code, in uses per update.
      mask: `[...]`, False at padding, which is never drawn.
      axis_name: as in `ema_update`; `key` must then be the same on all devices.
    """
    dead = codebook.counts < min_count
    rows = _vector_drawer(codebook, z_e, mask, axis_name)(key)
    embeddings = jnp.where(dead[..., None], rows, codebook.embeddings)
    counts = jnp.where(dead, max(1.0, min_count), codebook.counts)
    return Codebook(embeddings, counts, embeddings * counts[..., None])


def usage(
    codes: Int[Array, "*batch G"],
    *,
    num_codes: int,
    mask: Bool[Array, "*batch"] | None = None,
) -> Float[Array, "G K"]:
    """Count how often each code occurs.

    Add the counts of all batches of a set before calling `perplexity` or
    `active_codes`: those of one batch are bounded by its size.
    """
    flat, weights = _flatten(codes, mask)
    return jax.vmap(
        lambda c: jax.ops.segment_sum(weights, c, num_segments=num_codes), in_axes=1
    )(flat)


def perplexity(counts: Float[Array, "*batch K"]) -> Float[Array, "*batch"]:
    """Return exp(entropy) of each codebook's code distribution, from 1 to K."""
    p = counts / jnp.maximum(counts.sum(-1, keepdims=True), 1.0)
    return jnp.exp(-jnp.sum(jax.scipy.special.xlogy(p, p), axis=-1))


def active_codes(counts: Float[Array, "*batch K"]) -> Int[Array, "*batch"]:
    """Return how many codes occur at all, for each codebook."""
    return jnp.sum(counts > 0, axis=-1)


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


def _split_groups(
    codebook: Codebook, z_e: Float[Array, "*batch GD"]
) -> Float[Array, "*batch G D"]:
    num_codebooks, _, dim = codebook.embeddings.shape
    if z_e.shape[-1] != num_codebooks * dim:
        raise ValueError(
            f"the last axis of z_e must be {num_codebooks} codebooks x {dim} = "
            f"{num_codebooks * dim}, but its shape is {z_e.shape}"
        )
    return z_e.astype(jnp.float32).reshape(*z_e.shape[:-1], num_codebooks, dim)


def _gather(
    embeddings: Float[Array, "G K D"], codes: Int[Array, "*batch G"]
) -> Float[Array, "*batch G D"]:
    groups = jnp.arange(embeddings.shape[0]).reshape((1,) * (codes.ndim - 1) + (-1,))
    return embeddings[groups, codes]


def _squared_norm(x: Float[Array, "*batch D"]) -> Float[Array, "*batch"]:
    return jnp.sum(jnp.square(x), axis=-1)


def _flatten(
    codes: Int[Array, "*batch G"], mask: Bool[Array, "*batch"] | None
) -> tuple[Int[Array, "N G"], Float[Array, " N"]]:
    flat = codes.reshape(-1, codes.shape[-1])
    if mask is None:
        return flat, jnp.ones(flat.shape[0])
    return flat, mask.reshape(-1).astype(jnp.float32)


def _sum_by_code(
    codebook: Codebook,
    z_e: Float[Array, "*batch GD"],
    codes: Int[Array, "*batch G"],
    mask: Bool[Array, "*batch"] | None,
) -> Float[Array, "G K D"]:
    """Sum the vectors of each code, in float32."""
    num_codebooks, num_codes, dim = codebook.embeddings.shape
    flat, weights = _flatten(codes, mask)
    vectors = lax.stop_gradient(_split_groups(codebook, z_e))
    vectors = vectors.reshape(-1, num_codebooks, dim)
    # A product with the mask would let NaN in padding through.
    vectors = jnp.where(weights[:, None, None] > 0, vectors, 0.0)
    return jax.vmap(
        lambda z, c: jax.ops.segment_sum(z, c, num_segments=num_codes), in_axes=1
    )(vectors, flat)


def _vector_drawer(codebook, z_e, mask, axis_name):
    """Return key -> `[G, K, D]` vectors of z_e, drawn alike on all devices.

    Without replacement where there are enough vectors, so that no two codes coincide;
    where all are padding, the codebook's own rows.
    """
    num_codebooks, num_codes, dim = codebook.embeddings.shape
    vectors = lax.stop_gradient(_split_groups(codebook, z_e))
    vectors = vectors.reshape(-1, num_codebooks, dim)
    valid = jnp.ones(vectors.shape[0], bool) if mask is None else mask.reshape(-1)
    if axis_name is not None:
        vectors = lax.all_gather(vectors, axis_name, tiled=True)
        valid = lax.all_gather(valid, axis_name, tiled=True)

    def draw_one(key, vectors, rows):
        # Sorting random numbers, with padding last, shuffles the valid vectors first.
        order = jnp.argsort(
            jnp.where(valid, jax.random.uniform(key, valid.shape), jnp.inf)
        )
        turns = jnp.arange(num_codes) % jnp.maximum(valid.sum(), 1)
        return jnp.where(valid.any(), vectors[order[turns]], rows)

    def draw(key):
        keys = jax.random.split(key, num_codebooks)
        return jax.vmap(draw_one, (0, 1, 0))(keys, vectors, codebook.embeddings)

    return draw
