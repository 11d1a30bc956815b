"""Codebooks fitted to data: k-means initialisation, restarts of dead codes."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from vqvae_jax.quantizers.base import AxisName
from vqvae_jax.quantizers.codebook import (
    Codebook,
    Distance,
    from_embeddings,
    normalize,
    normalize_groups,
    require_mask,
    split_groups,
)
from vqvae_jax.quantizers.ema import sum_of_vectors, usage
from vqvae_jax.quantizers.search import nearest


def kmeans(
    key: PRNGKeyArray,
    codebook: Codebook,
    z_e: Float[Array, "*batch GD"],
    *,
    iterations: int = 10,
    distance: Distance = "euclidean",
    mask: Bool[Array, "*batch"] | None = None,
    axis_name: AxisName = None,
) -> Codebook:
    """Fit the rows to data by Lloyd's iterations, from randomly drawn vectors.

    An empty cluster restarts from another drawn vector. Each code gets a count of 1 and
    its row as its sum, so that the next EMA update keeps the norms.

    Args:
      key: draws the initial vectors, and those for empty clusters.
      codebook: determines the sizes; its values are replaced.
      z_e: `[..., G*D]`, the data; fewer vectors than codes are allowed.
      iterations: of Lloyd's algorithm.
      distance: "cosine" for spherical k-means, of normalised vectors and rows.
      mask: `[...]`, False at padding.
      axis_name: as in `VQ.update`; `key` must then be the same on all devices.

    Raises:
      ValueError: z_e has no vectors, or another width than the codebook.
    """
    num_codes = codebook.counts.shape[1]
    start_key, empty_key = jax.random.split(key)
    if distance == "cosine":
        z_e = normalize_groups(codebook, z_e)
    draw = _vector_drawer(codebook, z_e, mask, axis_name)
    codebook = from_embeddings(draw(start_key))

    def lloyd(codebook: Codebook, key: PRNGKeyArray) -> tuple[Codebook, None]:
        codes = nearest(codebook.embeddings, split_groups(codebook, z_e))
        n = usage(codes, num_codes=num_codes, mask=mask)
        z = sum_of_vectors(codebook, z_e, codes, mask)
        if axis_name is not None:
            n, z = lax.psum((n, z), axis_name)
        means = z / jnp.maximum(n, 1.0)[..., None]
        rows = jnp.where((n > 0)[..., None], means, draw(key))
        if distance == "cosine":
            rows = normalize(rows)
        return from_embeddings(rows), None

    return lax.scan(lloyd, codebook, jax.random.split(empty_key, iterations))[0]


def restart(
    key: PRNGKeyArray,
    codebook: Codebook,
    z_e: Float[Array, "*batch GD"],
    *,
    min_count: float = 0.01,
    mask: Bool[Array, "*batch"] | None = None,
    axis_name: AxisName = None,
) -> Codebook:
    """Replace dead codes, with a count below `min_count`, by randomly drawn vectors.

    Their counts and sums restart too; otherwise the next EMA update would undo it.

    Args:
      key: draws the vectors.
      codebook: the codebook, with its counts already updated.
      z_e: `[..., G*D]`, vectors to draw from.
      min_count: smallest running count of a live code, in uses per update.
      mask: `[...]`, False at padding, which is never drawn.
      axis_name: as in `VQ.update`; `key` must then be the same on all devices.

    Raises:
      ValueError: z_e has no vectors, or another width than the codebook.
    """
    dead = codebook.counts < min_count
    # Drawn even where no code is dead: a collective inside a conditional could
    # deadlock with a collective outside of it.
    rows = _vector_drawer(codebook, z_e, mask, axis_name)(key)
    embeddings = jnp.where(dead[..., None], rows, codebook.embeddings)
    counts = jnp.where(dead, max(1.0, min_count), codebook.counts)
    # Those of live codes stay: with the cosine distance a row is no mean of vectors.
    sums = jnp.where(dead[..., None], rows * counts[..., None], codebook.sums)
    return Codebook(embeddings, counts, sums)


def _vector_drawer(codebook, z_e, mask, axis_name):
    """Return key -> `[G, K, D]` vectors of z_e, the same draw on all devices.

    Drawn without replacement where there are enough vectors, so that no two codes
    coincide. Where all vectors are padding, return the codebook's rows.
    """
    require_mask(mask, z_e)
    num_codebooks, num_codes, dim = codebook.embeddings.shape
    vectors = lax.stop_gradient(split_groups(codebook, z_e))
    vectors = vectors.reshape(-1, num_codebooks, dim)
    num_vectors = vectors.shape[0]
    if num_vectors == 0:
        raise ValueError(f"rows are drawn from z_e, which is empty: shape {z_e.shape}")

    def take(indices, x):
        if axis_name is None:
            return x[indices]
        # Each device contributes the vectors it holds; none gathers all of them.
        indices = indices - lax.axis_index(axis_name) * num_vectors
        is_local = (indices >= 0) & (indices < num_vectors)
        local = x[jnp.where(is_local, indices, 0)]
        is_local = is_local.reshape(-1, *(1,) * (x.ndim - 1))
        return lax.psum(jnp.where(is_local, local, 0), axis_name)

    num_devices = 1 if axis_name is None else lax.axis_size(axis_name)
    valid = jnp.ones(num_devices * num_vectors, bool)
    if mask is not None:
        # Not by all_gather, whose result varies over devices for shard_map.
        valid = take(jnp.arange(len(valid)), mask.reshape(-1).astype(jnp.int32)) > 0

    def draw_one(key, vectors, rows):
        # Sort random numbers, padding last: a shuffle of the valid vectors.
        numbers = jax.random.uniform(key, valid.shape, jnp.float32)
        order = jnp.argsort(jnp.where(valid, numbers, jnp.inf))
        cyclic = jnp.arange(num_codes) % jnp.maximum(valid.sum(), 1)
        return jnp.where(valid.any(), take(order[cyclic], vectors), rows)

    def draw(key):
        keys = jax.random.split(key, num_codebooks)
        return jax.vmap(draw_one, (0, 1, 0))(keys, vectors, codebook.embeddings)

    return draw
