"""VIMCO: a bound from several samples of discrete latents, and its gradient.

    L = E[log 1/S sum_s w_s],   w_s = p(x|z_s) p(z_s) / q(z_s|x),   z_s ~ q(z|x)

Mnih and Rezende, *Variational Inference for Monte Carlo Objectives*, 2016. Latents are
a grid of categories, independent given the image.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Key

from vqvae_jax.runtime.errors import require


def objective(
    log_weights: Float[Array, "S B"], log_q: Float[Array, "S B"]
) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
    """Return a surrogate whose gradient estimates that of L, and L itself, in nats.

    The gradient of the surrogate is

        sum_j (L - L_-j) grad log q(z_j|x) + sum_j w_j / (sum_i w_i) grad log w_j

    where L_-j is L with the weight of sample j replaced by the geometric mean of the
    others': a baseline that does not depend on z_j, so the estimate has no bias. All of
    it is computed from logarithms, and their common offset never counts.

    Args:
      log_weights: log p(x, z_s) / q(z_s|x), with the gradient of p and of q.
      log_q: log q(z_s|x).

    Raises:
      UserError: there are fewer than two samples, so that a sample has no others.
    """
    num_samples = log_weights.shape[0]
    require(
        num_samples >= 2, f"the baseline needs at least 2 samples, got {num_samples}"
    )
    offset = lax.stop_gradient(log_weights.max(axis=0))
    log_w = log_weights - offset[None]
    bound = log_mean_exp(log_w, axis=0)
    log_geometric_mean = (log_w.sum(axis=0)[None] - log_w) / (num_samples - 1)
    is_own = jnp.eye(num_samples, dtype=bool)[:, :, None]
    without_own = jnp.where(is_own, log_geometric_mean[:, None], log_w[None])
    baseline = log_mean_exp(without_own, axis=1)
    signal = lax.stop_gradient(bound[None] - baseline)
    return jnp.sum(signal * log_q, axis=0) + bound, bound + offset


def draw_codes(
    keys: Key[Array, " B"],
    log_q_of_each: Float[Array, "B h w G K"],
    *,
    num_samples: int,
) -> Int[Array, "S B h w G"]:
    """Draw z_s ~ q(z|x) for each image by its own key, from one uniform number a code.

    The usual Gumbel noise would be K random numbers a code.
    """
    cumulative = jnp.cumsum(jnp.exp(lax.stop_gradient(log_q_of_each)), axis=-1)
    # Rounded, the probabilities do not quite add up to 1.
    total = cumulative[..., -1]

    shape = (num_samples, *total.shape[1:])
    u = jax.vmap(lambda key: jax.random.uniform(key, shape), out_axes=1)(keys)

    def draw(u):
        # The first category whose cumulative probability is above u.
        below = cumulative[..., :-1] <= (u * total)[..., None]
        return jnp.sum(below, axis=-1, dtype=jnp.int32)

    return lax.map(draw, u)


def log_q_of(
    codes: Int[Array, "S B h w G"], log_q_of_each: Float[Array, "B h w G K"]
) -> Float[Array, "S B"]:
    """Return log q(z_s|x), gathered at once so that its gradient is one scatter."""
    chosen = jnp.take_along_axis(log_q_of_each, jnp.moveaxis(codes, 0, -1), axis=-1)
    return chosen.sum(axis=(1, 2, 3)).T


def log_mean_exp(x: Float[Array, "..."], *, axis: int) -> Float[Array, "..."]:
    """Return log of the mean of exp(x) over an axis."""
    return jax.nn.logsumexp(x, axis=axis) - math.log(x.shape[axis])
