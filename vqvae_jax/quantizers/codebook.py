"""Codebooks: tables of embeddings with their running statistics."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from vqvae_jax.quantizers.primitives import straight_through, sum_by_code, vary_like

Distance = Literal["euclidean", "cosine"]

# Of the squared length of a normalised row, whose rounding grows with D.
_UNIT_TOLERANCE = 1e-5


class Codebook(NamedTuple):
    """The embedding tables and the running statistics of the EMA variant.

    Attributes:
      embeddings: `[G, K, D]` float32, the rows e_k of each of the G codebooks.
      counts: `[G, K]` float32, N_i of equation 6, the decayed number of uses.
      sums: `[G, K, D]` float32, m_i of equation 7: `e_i = m_i / N_i`, or
        `m_i / |m_i|` with the cosine distance.
    """

    embeddings: Float[Array, "G K D"]
    counts: Float[Array, "G K"]
    sums: Float[Array, "G K D"]


def init_uniform(
    key: PRNGKeyArray, *, num_codes: int, dim: int, num_codebooks: int = 1
) -> Codebook:
    """Draw a codebook uniformly from [-1/K, 1/K], with G = `num_codebooks`.

    Counts start at 1 and sums at the embeddings, so that the first EMA updates pull
    codes towards data instead of dividing by zero.
    """
    shape = (num_codebooks, num_codes, dim)
    bound = 1.0 / num_codes
    return from_embeddings(
        jax.random.uniform(key, shape, jnp.float32, minval=-bound, maxval=bound)
    )


def from_embeddings(embeddings: Float[Array, "G K D"]) -> Codebook:
    """Make a codebook of given rows, each with a count of 1."""
    embeddings = embeddings.astype(jnp.float32)
    counts = jnp.ones(embeddings.shape[:-1], jnp.float32)
    # A copy: a buffer that occurs twice in the state could not be donated.
    return Codebook(embeddings, counts, jnp.copy(embeddings))


def gather_rows(
    embeddings: Float[Array, "G K D"], codes: Int[Array, "*batch G"]
) -> Float[Array, "*batch G D"]:
    """Return the row of each code; its gradient is a sum by code."""
    # The custom gradient is each device's own, which is right where codes vary.
    return _gather(vary_like(embeddings, codes), codes)


def require_mask(
    mask: Bool[Array, "..."] | None, x: Float[Array, "..."] | Int[Array, "..."]
) -> None:
    """Raise ValueError unless a mask has one entry for each vector of x, `[..., F]`.

    A mask of the batch axis alone would broadcast against the last axis of a grid.
    """
    if mask is not None and mask.shape != x.shape[:-1]:
        raise ValueError(
            f"mask must have the shape {x.shape[:-1]}, one entry for each vector, got "
            f"{mask.shape}"
        )


def require_features(z_e: Float[Array, "..."], features: int) -> None:
    """Raise ValueError unless the vectors have so many features."""
    if z_e.shape[-1] != features:
        raise ValueError(
            f"the last axis of z_e must be {features}, but its shape is {z_e.shape}"
        )


def require_codes(codes: Int[Array, "..."], number: int) -> None:
    """Raise ValueError unless there are so many codes for each vector."""
    if codes.shape[-1] != number:
        raise ValueError(
            f"the last axis of codes must be {number}, but their shape is {codes.shape}"
        )


def split_groups(
    codebook: Codebook, z_e: Float[Array, "*batch GD"]
) -> Float[Array, "*batch G D"]:
    """Split vectors into each codebook's part, `[..., G*D]` -> `[..., G, D]` float32.

    Raises:
      ValueError: the last axis of z_e is not G*D.
    """
    num_codebooks, _, dim = codebook.embeddings.shape
    if z_e.shape[-1] != num_codebooks * dim:
        raise ValueError(
            f"the last axis of z_e must be {num_codebooks} codebooks x {dim} = "
            f"{num_codebooks * dim}, but its shape is {z_e.shape}"
        )
    return z_e.astype(jnp.float32).reshape(*z_e.shape[:-1], num_codebooks, dim)


def norm(x: Float[Array, "*batch D"]) -> Float[Array, "*batch 1"]:
    """Return |x|; its gradient at 0 is 0."""
    scale, _ = _scale(x)
    return scale * _root_of_squares(x / jnp.where(scale > 0, scale, 1.0))


def normalize(x: Float[Array, "*batch D"]) -> Float[Array, "*batch D"]:
    """Return x / |x|, or x itself, with its gradient unchanged, if 0 or not finite."""
    scale, is_usable = _scale(x)
    # Selected before the divisions: 0 times NaN, in the gradient, would be NaN.
    scaled = jnp.where(is_usable, x, 0.0) / jnp.where(is_usable, scale, 1.0)
    return jnp.where(is_usable, scaled / _root_of_squares(scaled), x)


def unit_rows(embeddings: Float[Array, "G K D"]) -> Float[Array, "G K D"]:
    """Normalise rows, and return those of length 1 as they are, to the last bit.

    Programs round a division by a root differently: with a gradient, for instance.
    """
    rows = normalize(embeddings)
    squares = jnp.sum(jnp.square(embeddings), axis=-1, keepdims=True)
    is_unit = jnp.abs(squares - 1.0) < _UNIT_TOLERANCE
    kept = straight_through(rows, lax.stop_gradient(embeddings))
    return jnp.where(is_unit, kept, rows)


def normalize_groups(
    codebook: Codebook, z_e: Float[Array, "*batch GD"]
) -> Float[Array, "*batch GD"]:
    """Normalise each codebook's part of vectors, in float32.

    Raises:
      ValueError: the last axis of z_e is not G*D.
    """
    return normalize(split_groups(codebook, z_e)).reshape(z_e.shape)


def _scale(x):
    """Return the largest element, and whether x / |x| exists.

    Divided by it, x has squares that are float32, which those of 1e20 are not.
    """
    scale = lax.stop_gradient(jnp.max(jnp.abs(x), axis=-1, keepdims=True))
    return scale, (scale > 0) & jnp.isfinite(scale)


def _root_of_squares(x):
    """Return |x|, or 1 at x = 0, where the root has no gradient."""
    squares = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    return jnp.sqrt(jnp.where(squares > 0, squares, 1.0))


@jax.custom_vjp
def _gather(
    embeddings: Float[Array, "G K D"], codes: Int[Array, "*batch G"]
) -> Float[Array, "*batch G D"]:
    return _index(embeddings, codes)


def _gather_forward(embeddings, codes):
    # Not `_gather` itself, whose rule a second derivative could not pass.
    return _index(embeddings, codes), (codes, embeddings.shape[1])


def _index(embeddings, codes):
    groups = jnp.arange(embeddings.shape[0]).reshape((1,) * (codes.ndim - 1) + (-1,))
    return embeddings[groups, codes]


def _gather_backward(residuals, gradient):
    codes, num_codes = residuals
    num_codebooks, dim = gradient.shape[-2:]
    gradient = gradient.reshape(-1, num_codebooks, dim)
    codes = codes.reshape(-1, num_codebooks)
    return sum_by_code(gradient, codes, num_codes=num_codes), None


_gather.defvjp(_gather_forward, _gather_backward)
