"""From the logits of a category to the one that is drawn."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from vqvae_jax.runtime.errors import require

# Logits of the network's batch to those that are drawn from.
Adjust = Callable[[Float[Array, "N K"]], Float[Array, "B K"]]

# In an array of given codes: this one is to be drawn.
FREE = -1


def truncated(
    logits: Float[Array, "*places K"],
    *,
    temperature: float | Float[Array, ""] = 1.0,
    top_k: int | None = None,
    top_p: float | Float[Array, ""] | None = None,
) -> Float[Array, "*places K"]:
    """Sharpen or flatten a distribution, and leave out what is unlikely.

    Args:
      logits: of K categories.
      temperature: logits are divided by it; 1 leaves the model itself.
      top_k: keep the k likeliest categories, and those that tie with the last.
      top_p: keep the fewest likeliest categories that have this probability together
        (Holtzman et al., 2020), after the temperature and top_k.
    """
    logits = logits / temperature
    if top_k is not None and top_k < logits.shape[-1]:
        last_kept = lax.top_k(logits, top_k)[0][..., -1:]
        logits = jnp.where(logits < last_kept, -jnp.inf, logits)
    if top_p is not None:
        ranked = jnp.flip(jnp.sort(logits, axis=-1), axis=-1)
        p = jax.nn.softmax(ranked, axis=-1)
        # A category is kept if those likelier than it do not reach top_p already.
        kept = jnp.cumsum(p, axis=-1) - p < top_p
        # Rounded sums may reach 1 before the last.
        kept |= top_p >= 1
        last_kept = jnp.min(jnp.where(kept, ranked, jnp.inf), axis=-1, keepdims=True)
        logits = jnp.where(logits < last_kept, -jnp.inf, logits)
    return logits


def require_drawable(*, temperature, top_k, top_p) -> None:
    """Raise UserError unless `truncated` leaves a distribution to draw from."""
    for name, value, allowed, is_allowed in (
        ("temperature", temperature, "above 0", lambda x: x > 0),
        ("top_k", top_k, "at least 1", lambda x: x >= 1),
        ("top_p", top_p, "in (0, 1]", lambda x: 0 < x <= 1),
    ):
        if value is not None and not isinstance(value, jax.core.Tracer):
            # An array that jit only closes over has a value: it is compared at once.
            with jax.ensure_compile_time_eval():
                allows = bool(is_allowed(value))
            require(allows, f"{name} must be {allowed}, got {value}")


def guided(
    logits: Float[Array, "N K"], *, scale: float | Float[Array, ""]
) -> Float[Array, "B K"]:
    """Combine logits with a label and without: classifier-free guidance.

    Args:
      logits: `[2B, K]`, first those with the label, then those without.
      scale: 0 forgets the label, 1 is the model itself, more exaggerates the label
        (Ho and Salimans, 2022, with scale = 1 + w).
    """
    given, without = jnp.split(logits, 2)
    return without + scale * (given - without)


def choose(
    adjust: Adjust,
    logits: Float[Array, "N K"],
    key: PRNGKeyArray,
    given: Int[Array, " B"],
) -> Int[Array, " N"]:
    """Draw the categories that are not given, for each copy of the batch the same."""
    adjusted = adjust(logits)
    drawn = jax.random.categorical(key, adjusted).astype(jnp.int32)
    codes = jnp.where(given == FREE, drawn, given)
    return jnp.tile(codes, logits.shape[0] // codes.shape[0])
