"""Usage counts of codes, and their EMA update (appendix A.1)."""

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from vqvae_jax.quantizers.base import AxisName
from vqvae_jax.quantizers.codebook import Codebook, require_mask, split_groups
from vqvae_jax.quantizers.primitives import sum_by_code

# A smaller EMA count means thousands of updates without use; m / N would divide two
# numbers that are about to underflow.
_SMALLEST_COUNT = 1e-8


def ema_update(
    codebook: Codebook,
    z_e: Float[Array, "*batch GD"],
    codes: Int[Array, "*batch G"],
    *,
    decay: float | Float[Array, ""] = 0.99,
    mask: Bool[Array, "*batch"] | None = None,
    axis_name: AxisName = None,
) -> Codebook:
    """Move each code towards the mean of its vectors (appendix A.1, equations 6 to 8).

    Args:
      codebook: the codebook before the update.
      z_e: `[..., G*D]`, the vectors that were quantized.
      codes: `[..., G]`, their codes.
      decay: gamma; the paper uses 0.99.
      mask: `[...]`, False at padding, which then changes nothing.
      axis_name: the mapped axes of a pmap, vmap or shard_map to sum the statistics
        over, so that all devices keep the same codebook. Leave it out under jit with
        sharded arrays, where a sum is already the sum over all devices.

    Raises:
      ValueError: the decay is not in [0, 1).
    """
    _require_decay(decay)
    n = usage(codes, num_codes=codebook.counts.shape[1], mask=mask)
    z = sum_of_vectors(codebook, z_e, codes, mask)
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
    decay: float | Float[Array, ""] = 0.99,
    mask: Bool[Array, "*batch"] | None = None,
    axis_name: AxisName = None,
) -> Codebook:
    """Update the counts only, where a loss moves the embeddings.

    Takes the arguments of `ema_update`; `restart` reads the counts.
    """
    _require_decay(decay)
    n = usage(codes, num_codes=codebook.counts.shape[1], mask=mask)
    if axis_name is not None:
        n = lax.psum(n, axis_name)
    counts = decay * codebook.counts + (1 - decay) * n
    return Codebook(
        codebook.embeddings, counts, codebook.embeddings * counts[..., None]
    )


def usage(
    codes: Int[Array, "*batch G"],
    *,
    num_codes: int,
    mask: Bool[Array, "*batch"] | None = None,
) -> Float[Array, "G K"]:
    """Count the uses of each code.

    Sum the counts over all batches of a set before `perplexity` or `active_codes`: of
    one batch both are bounded by its size.
    """
    flat, weights = _flatten(codes, mask)
    ones = jnp.broadcast_to(weights[:, None, None], (*flat.shape, 1))
    return sum_by_code(ones, flat, num_codes=num_codes)[..., 0]


def perplexity(counts: Float[Array, "*batch K"]) -> Float[Array, "*batch"]:
    """Return exp(entropy) of each codebook's code distribution, from 1 to K."""
    total = counts.sum(-1, keepdims=True)
    p = counts / jnp.where(total > 0, total, 1.0)
    return jnp.exp(-jnp.sum(jax.scipy.special.xlogy(p, p), axis=-1))


def active_codes(counts: Float[Array, "*batch K"]) -> Int[Array, "*batch"]:
    """Return the number of codes in use, for each codebook."""
    return jnp.sum(counts > 0, axis=-1)


def sum_of_vectors(
    codebook: Codebook,
    z_e: Float[Array, "*batch GD"],
    codes: Int[Array, "*batch G"],
    mask: Bool[Array, "*batch"] | None,
) -> Float[Array, "G K D"]:
    """Sum the vectors of each code, in float32."""
    num_codebooks, num_codes, dim = codebook.embeddings.shape
    flat, weights = _flatten(codes, mask)
    vectors = lax.stop_gradient(split_groups(codebook, z_e))
    vectors = vectors.reshape(-1, num_codebooks, dim)
    # A product with the mask would let NaN in padding through.
    vectors = jnp.where(weights[:, None, None] > 0, vectors, 0.0)
    return sum_by_code(vectors, flat, num_codes=num_codes)


def _require_decay(decay: float | Float[Array, ""]) -> None:
    # A schedule of the decay is only known when the program runs.
    if not isinstance(decay, jax.core.Tracer) and not 0 <= decay < 1:
        raise ValueError(f"decay must be in [0, 1), got {decay}")


def _flatten(
    codes: Int[Array, "*batch G"], mask: Bool[Array, "*batch"] | None
) -> tuple[Int[Array, "N G"], Float[Array, " N"]]:
    require_mask(mask, codes)
    flat = codes.reshape(-1, codes.shape[-1])
    if mask is None:
        return flat, jnp.ones(flat.shape[0], jnp.float32)
    return flat, mask.reshape(-1).astype(jnp.float32)
