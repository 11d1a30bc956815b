"""Estimators of the gradient of z_q, which a nearest row does not have.

Each takes vectors z and their rows e, `[..., D]`, and returns e, or, with noise, a
vector at the distance of e from z. Its gradient reaches z by the estimator, and e
unless the caller stops it.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from vqvae_jax.quantizers.codebook import norm, normalize
from vqvae_jax.quantizers.primitives import straight_through


def rotation(
    z: Float[Array, "*batch D"], e: Float[Array, "*batch D"]
) -> Float[Array, "*batch D"]:
    """Return e as R z |e| / |z|, with a gradient to z through the product alone.

    The rotation trick (Fifty et al. 2024, section 4.2): with a^ = a / |a| and
    r = (z^ + e^) / |z^ + e^|, the matrix R = I - 2 r r' + 2 e^ z^' rotates z to the
    direction of e. R and the scale are constants of the gradient, which is therefore
    R' g |e| / |z|. At e = 0 it is 0. At z = -e, where r has no direction, R reflects z.
    At z = 0, and where z is not finite, the gradient is passed unchanged.
    """
    length = norm(z)
    is_usable = (length > 0) & jnp.isfinite(length)
    # Selected before the products: 0 times NaN, in the gradient, would be NaN.
    usable = jnp.where(is_usable, z, 0.0)
    scale = norm(e) / jnp.where(is_usable, length, 1.0)
    z_hat, e_hat = normalize(usable), normalize(e)
    r = normalize(z_hat + e_hat)
    scale, z_hat, e_hat, r = lax.stop_gradient((scale, z_hat, e_hat, r))
    rotated = usable - 2 * r * _dot(r, usable) + 2 * e_hat * _dot(z_hat, usable)
    return straight_through(jnp.where(is_usable, scale * rotated, z), e)


def diveq(
    z: Float[Array, "*batch D"],
    e: Float[Array, "*batch D"],
    *,
    noise_variance: float = 1e-3,
    key: PRNGKeyArray | None = None,
) -> Float[Array, "*batch D"]:
    """Return z + |e - z| sg[d / |d|] with d = e - z + noise.

    DiVeQ (Vali et al. 2025): the length of the error has a gradient, to z and to e, its
    direction has none. The noise is normal with variance `noise_variance`; the result
    is then not e but at the same distance from z. Without a key there is no noise, the
    limit that the paper calls DiVeQ-detach, and the result is e to the last bit.

    At z = e, and where z is not finite, the gradient is passed to z unchanged.
    """
    is_usable = jnp.isfinite(z).all(axis=-1, keepdims=True)
    error = jnp.where(is_usable, e - z, 0.0)
    direction = error
    if key is not None:
        noise = jax.random.normal(key, error.shape, error.dtype)
        direction += math.sqrt(noise_variance) * noise
    z_q = z + norm(error) * lax.stop_gradient(normalize(direction))
    return z_q if key is not None else straight_through(z_q, lax.stop_gradient(e))


def _dot(a: Float[Array, "*batch D"], b: Float[Array, "*batch D"]):
    return jnp.sum(a * b, axis=-1, keepdims=True)
