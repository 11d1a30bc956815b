"""Sums of the vectors that share a code, as a codebook's EMA and gradient need them.

On CPU each vector is added to its code's row. On GPU the additions to one row wait for
each other, longer than all the rest of a training step where few codes are used, and
come in an order that changes from run to run; there, and on TPU, the sums are a product
with one-hot codes, unless these are so many that they cost more than they save.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vqvae_jax.quantizers.platforms import for_platform

# Of more codes each has few vectors, and few additions meet.
_MAX_ONE_HOT = 2048
# One-hot codes are an array of their own, in float32.
_MAX_ONE_HOT_BYTES = 1 << 30


# A program of its own: outside of jit each call would trace and compile anew.
@functools.partial(jax.jit, static_argnames="num_codes")
def sum_by_code(
    vectors: Float[Array, "N G D"], codes: Int[Array, "N G"], *, num_codes: int
) -> Float[Array, "G K D"]:
    """Sum the vectors of each code of each of G codebooks, in float32."""
    vectors = vectors.astype(jnp.float32)
    added = functools.partial(_added, num_codes=num_codes)
    multiplied = functools.partial(_multiplied, num_codes=num_codes)
    one_hot_pays = num_codes <= _MAX_ONE_HOT
    one_hot_fits = 4 * codes.size * num_codes <= _MAX_ONE_HOT_BYTES
    return for_platform(
        vectors,
        codes,
        cpu=added,
        default=multiplied if one_hot_pays and one_hot_fits else added,
    )


def _added(vectors, codes, *, num_codes):
    return jax.vmap(
        lambda z, c: jax.ops.segment_sum(z, c, num_segments=num_codes), in_axes=1
    )(vectors, codes)


def _multiplied(vectors, codes, *, num_codes):
    one_hot = jax.nn.one_hot(codes.T, num_codes, dtype=jnp.float32)
    return jnp.einsum("gnk,ngd->gkd", one_hot, vectors, precision="highest")
