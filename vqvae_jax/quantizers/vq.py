"""Codebooks, and vectors replaced by their rows: section 3, equations 1 to 3."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from vqvae_jax.quantizers.search import nearest
from vqvae_jax.quantizers.segment_sum import sum_by_code
from vqvae_jax.quantizers.varying import vary_like


class Codebook(NamedTuple):
    """The embedding tables and the running statistics of the EMA variant.

    Attributes:
      embeddings: `[G, K, D]` float32, the rows e_k of each of the G codebooks.
      counts: `[G, K]` float32, N_i of equation 6, how often each code was used lately.
      sums: `[G, K, D]` float32, m_i of equation 7: e_i = m_i / N_i.
    """

    embeddings: Float[Array, "G K D"]
    counts: Float[Array, "G K"]
    sums: Float[Array, "G K D"]


class Quantized(NamedTuple):
    """What `quantize` returns.

    Attributes:
      z_q: `[..., G*D]`, equal to the nearest rows; its gradient goes straight to z_e.
      codes: `[..., G]` int32, the nearest rows' indices (equation 1).
      codebook_loss: `[..., G]`, `|sg[z_e] - e|^2`, the second term of equation 3. The
        norm sums over D; average it over the N latents. Its gradient reaches the
        codebook only.
      commitment_loss: `[..., G]`, `|z_e - sg[e]|^2`, the third term without its beta.
        Its gradient reaches z_e only.
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
    counts = jnp.ones(embeddings.shape[:-1], jnp.float32)
    return Codebook(embeddings, counts, embeddings)


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
      ValueError: the last axis of z_e is not G*D, or the mask has another shape.
    """
    require_mask(mask, z_e)
    vectors = split_groups(codebook, z_e)
    codes = nearest(codebook.embeddings, vectors)
    rows = _rows(codebook.embeddings, codes)
    if mask is not None:
        # Before the squares: 0 times the slope of a square at NaN would be NaN.
        vectors = jnp.where(mask[..., None, None], vectors, 0.0)
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
    rows = _rows(codebook.embeddings, codes)
    return rows.reshape(*codes.shape[:-1], -1)


def require_mask(
    mask: Bool[Array, "..."] | None, x: Float[Array, "..."] | Int[Array, "..."]
) -> None:
    """Raise ValueError unless a mask has a place for each vector of x, `[..., F]`.

    One of the batch alone could be taken for one of the last axis of a grid.
    """
    if mask is not None and mask.shape != x.shape[:-1]:
        raise ValueError(
            f"mask must have the shape {x.shape[:-1]}, one place for each vector, got "
            f"{mask.shape}"
        )


def split_groups(
    codebook: Codebook, z_e: Float[Array, "*batch GD"]
) -> Float[Array, "*batch G D"]:
    """Cut vectors into each codebook's part, `[..., G*D]` -> `[..., G, D]` float32.

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


def _rows(
    embeddings: Float[Array, "G K D"], codes: Int[Array, "*batch G"]
) -> Float[Array, "*batch G D"]:
    """Return the row of each code."""
    # The rule below gives each device's gradient, as where codes vary it should.
    return _gather(vary_like(embeddings, codes), codes)


@jax.custom_vjp
def _gather(
    embeddings: Float[Array, "G K D"], codes: Int[Array, "*batch G"]
) -> Float[Array, "*batch G D"]:
    groups = jnp.arange(embeddings.shape[0]).reshape((1,) * (codes.ndim - 1) + (-1,))
    return embeddings[groups, codes]


def _gather_forward(embeddings, codes):
    return _gather(embeddings, codes), (codes, embeddings.shape[1])


def _gather_backward(residuals, gradient):
    codes, num_codes = residuals
    num_codebooks, dim = gradient.shape[-2:]
    gradient = gradient.reshape(-1, num_codebooks, dim)
    codes = codes.reshape(-1, num_codebooks)
    return sum_by_code(gradient, codes, num_codes=num_codes), None


_gather.defvjp(_gather_forward, _gather_backward)


def _squared_norm(x: Float[Array, "*batch D"]) -> Float[Array, "*batch"]:
    return jnp.sum(jnp.square(x), axis=-1)
