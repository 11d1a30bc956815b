"""Sums of the vectors that share a code, for a codebook's EMA and gradient.

On CPU each vector is added to its code's row. On GPU, atomic additions to one row
serialise, which takes longer than the rest of a training step where few codes are in
use, and their order changes from run to run. There, and on TPU, the sums are a matrix
product with one-hot codes, unless the one-hot array is too large to pay off.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vqvae_jax.quantizers.platforms import for_platform

# With more codes, few vectors share a row and few additions collide.
_MAX_ONE_HOT = 2048
# The one-hot array is float32.
_MAX_ONE_HOT_BYTES = 1 << 30


# Jitted, so that calls outside of jit are not traced and compiled each time.
@functools.partial(jax.jit, static_argnames="num_codes")
def sum_by_code(
    vectors: Float[Array, "N G D"], codes: Int[Array, "N G"], *, num_codes: int
) -> Float[Array, "G K D"]:
    """Sum the vectors of each code of each of G codebooks, in float32."""
    vectors = vectors.astype(jnp.float32)
    scatter = functools.partial(_scatter_add, num_codes=num_codes)
    matmul = functools.partial(_one_hot_matmul, num_codes=num_codes)
    one_hot_pays = num_codes <= _MAX_ONE_HOT
    one_hot_fits = 4 * codes.size * num_codes <= _MAX_ONE_HOT_BYTES
    return for_platform(
        vectors,
        codes,
        cpu=scatter,
        default=matmul if one_hot_pays and one_hot_fits else scatter,
    )


def _scatter_add(vectors, codes, *, num_codes):
    return jax.vmap(
        lambda z, c: jax.ops.segment_sum(z, c, num_segments=num_codes), in_axes=1
    )(vectors, codes)


def _one_hot_matmul(vectors, codes, *, num_codes):
    one_hot = jax.nn.one_hot(codes.T, num_codes, dtype=jnp.float32)
    return jnp.einsum("gnk,ngd->gkd", one_hot, vectors, precision="highest")
