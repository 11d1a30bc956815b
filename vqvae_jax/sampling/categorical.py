"""Sampling of categories from logits."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from vqvae_jax.runtime.errors import require

# Map the logits of the network's batch to the logits to sample from.
Adjust = Callable[[Float[Array, "N K"]], Float[Array, "B K"]]

# Marks the codes to sample in an array of given codes.
FREE = -1


def truncated(
    logits: Float[Array, "*batch K"],
    *,
    temperature: float | Float[Array, ""] = 1.0,
    top_k: int | None = None,
    top_p: float | Float[Array, ""] | None = None,
) -> Float[Array, "*batch K"]:
    """Apply a temperature to a distribution and drop unlikely categories.

    Args:
      logits: of K categories.
      temperature: divides the logits; 1 keeps the model's distribution.
      top_k: keep the k likeliest categories, and those that tie with the last one.
      top_p: keep the smallest set of likeliest categories whose total probability
        reaches this value (Holtzman et al., 2020), after the temperature and top_k.
    """
    logits = logits / temperature
    if top_k is not None and top_k < logits.shape[-1]:
        last_kept = lax.top_k(logits, top_k)[0][..., -1:]
        logits = jnp.where(logits < last_kept, -jnp.inf, logits)
    if top_p is not None:
        ranked = jnp.flip(jnp.sort(logits, axis=-1), axis=-1)
        p = jax.nn.softmax(ranked, axis=-1)
        # Keep a category if the likelier ones together stay below top_p.
        kept = jnp.cumsum(p, axis=-1) - p < top_p
        # Rounded sums can reach 1 before the last category.
        kept |= top_p >= 1
        last_kept = jnp.min(jnp.where(kept, ranked, jnp.inf), axis=-1, keepdims=True)
        logits = jnp.where(logits < last_kept, -jnp.inf, logits)
    return logits


def require_drawable(*, temperature, top_k, top_p) -> None:
    """Raise UserError unless `truncated` accepts the options."""
    for name, value, allowed, is_allowed in (
        ("temperature", temperature, "above 0", lambda x: x > 0),
        ("top_k", top_k, "at least 1", lambda x: x >= 1),
        ("top_p", top_p, "in (0, 1]", lambda x: 0 < x <= 1),
    ):
        if value is not None and not isinstance(value, jax.core.Tracer):
            # A concrete array that jit closes over has a value: compare it at once.
            with jax.ensure_compile_time_eval():
                is_valid = bool(is_allowed(value))
            require(is_valid, f"{name} must be {allowed}, got {value}")


def guided(
    logits: Float[Array, "N K"], *, scale: float | Float[Array, ""]
) -> Float[Array, "B K"]:
    """Combine logits with and without a label by classifier-free guidance.

    Args:
      logits: `[2B, K]`, first those with the label, then those without.
      scale: 0 ignores the label, 1 is the conditional model, larger values amplify the
        label (Ho and Salimans, 2022, with scale = 1 + w).
    """
    conditional, unconditional = jnp.split(logits, 2)
    return unconditional + scale * (conditional - unconditional)


def sample_categorical(
    adjust: Adjust,
    logits: Float[Array, "N K"],
    key: PRNGKeyArray,
    given: Int[Array, " B"],
) -> Int[Array, " N"]:
    """Sample the categories that are not given, the same for all copies of the batch.

    Args:
      adjust: maps logits `[N, K]` to the logits `[B, K]` to sample from.
      logits: of N = copies * B categories.
      key: for the samples.
      given: the categories to keep, `FREE` for those to sample.
    """
    adjusted = adjust(logits)
    drawn = jax.random.categorical(key, adjusted).astype(jnp.int32)
    codes = jnp.where(given == FREE, drawn, given)
    return jnp.tile(codes, logits.shape[0] // codes.shape[0])
