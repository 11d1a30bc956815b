"""Linear maps into the space of the codes and back, for members of another width."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from vqvae_jax.quantizers.base import Quantizer, State
from vqvae_jax.quantizers.codebook import require_features, require_mask
from vqvae_jax.quantizers.primitives import matmul

_MAX_TABLE = 2**16


class Projection(NamedTuple):
    """Affine maps from z_e to the vectors that are quantized, and back to z_q.

    Members keep both maps even where d = F. The layers before and after can absorb
    them, and a state without arrays would be a special case wherever states are mapped,
    stored or compared.

    Attributes:
      into: `[F, d]` float32.
      into_bias: `[d]` float32.
      out: `[d, F]` float32.
      out_bias: `[F]` float32.
    """

    into: Float[Array, "F d"]
    into_bias: Float[Array, " d"]
    out: Float[Array, "d F"]
    out_bias: Float[Array, " F"]


def init_projection(key: PRNGKeyArray, features: int, width: int) -> Projection:
    """Draw normal weights that keep unit variance in both directions; biases are 0.

    Args:
      key: decides the draw.
      features: F, of z_e and z_q.
      width: d, of the vectors that are quantized.
    """
    into_key, out_key = jax.random.split(key)
    into = jax.random.normal(into_key, (features, width), jnp.float32)
    out = jax.random.normal(out_key, (width, features), jnp.float32)
    return Projection(
        into=into / features**0.5,
        into_bias=jnp.zeros(width, jnp.float32),
        out=out / width**0.5,
        out_bias=jnp.zeros(features, jnp.float32),
    )


def project_in(
    projection: Projection,
    z_e: Float[Array, "*batch F"],
    mask: Bool[Array, "*batch"] | None = None,
) -> Float[Array, "*batch d"]:
    """Map z_e to the vectors that are quantized, in float32.

    Vectors at padding, where `mask` is False, are read as zeros and pass no gradient:
    that of the weights is a sum over all vectors, to which 0 times NaN would be NaN.

    Raises:
      ValueError: the last axis of z_e is not F, or the mask has another shape.
    """
    require_mask(mask, z_e)
    require_features(z_e, len(projection.into))
    z_e = z_e.astype(jnp.float32)
    if mask is None:
        return _affine(z_e, projection.into, projection.into_bias)
    z_e = jnp.where(mask[..., None], z_e, 0.0)
    z = _affine(z_e, projection.into, projection.into_bias)
    return jnp.where(mask[..., None], z, lax.stop_gradient(z))


@jax.jit
def project_out(
    projection: Projection, z: Float[Array, "*batch d"]
) -> Float[Array, "*batch F"]:
    """Map quantized vectors to z_q, in float32.

    The result does not depend on what computes z, nor on whether the caller is jitted:
    XLA would round differently where it merges the map with the operations before it.
    """
    z = lax.optimization_barrier(z)
    return _affine(z, projection.out, projection.out_bias)


def _affine(
    x: Float[Array, "*batch a"], weights: Float[Array, "a b"], bias: Float[Array, " b"]
) -> Float[Array, "*batch b"]:
    y = matmul(x, weights)
    return y + bias.reshape((1,) * (y.ndim - 1) + (-1,))


def all_vectors(quantizer: Quantizer, state: State) -> Float[Array, "1 K F"] | None:
    """Return the vector of each code, where `lookup` computes them.

    None with several codes per vector, or with more than 65 536 codes.
    """
    if quantizer.codes_per_vector > 1 or quantizer.num_codes > _MAX_TABLE:
        return None
    codes = jnp.arange(quantizer.num_codes, dtype=jnp.int32)
    return quantizer.lookup(state, codes[:, None])[None]
