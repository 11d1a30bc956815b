"""Codes drawn from a categorical distribution by the Gumbel-softmax."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from vqvae_jax import options
from vqvae_jax.quantizers.base import InitFromKey, Quantized
from vqvae_jax.quantizers.codebook import (
    gather_rows,
    require_codes,
    require_features,
    require_mask,
)
from vqvae_jax.quantizers.primitives import matmul, straight_through


class GumbelState(NamedTuple):
    """The map to logits, and the codebook; the gradient moves all of it.

    Attributes:
      logit_weights: `[D, K]` float32.
      logit_bias: `[K]` float32.
      embeddings: `[K, D]` float32, the rows e_k.
    """

    logit_weights: Float[Array, "D K"]
    logit_bias: Float[Array, " K"]
    embeddings: Float[Array, "K D"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class GumbelSoftmax(InitFromKey):
    """A sample of q(k|x) = softmax(logits), straight-through (Jang et al. 2017).

    The logits are a linear map of z_e, as in the dVAE of DALL-E (Ramesh et al. 2021)
    and the Gumbel variant of VQGAN (Esser et al. 2021). The reconstruction trains the
    rows; the reconstruction and the KL term train the logits. On digits, with these
    weights, 8 % of K = 512 codes were in use, and images were 3 dB below those of an
    EMA codebook: docs/which_quantizer.md.

    Attributes:
      num_codes: K, rows of the codebook.
      dim: D, features of a row and of z_e.
      temperature: tau of the softmax that the gradient goes through; the codes do not
        depend on it.
      kl_weight: weight of the KL term, nats per code. In the units of the losses here,
        number of codes / number of values of x makes the sum the ELBO.
    """

    num_codes: Annotated[int, ">= 1"] = 512
    dim: Annotated[int, ">= 1"] = 64
    temperature: Annotated[float, "> 0"] = 1.0
    kl_weight: Annotated[float, ">= 0"] = 5e-4

    def __post_init__(self):
        """Check every option; UserError, a ValueError, names the first wrong one."""
        options.check(self)

    def init(
        self,
        key: PRNGKeyArray,
        z_e: Float[Array, "*batch D"] | None = None,
        mask: Bool[Array, "*batch"] | None = None,
    ) -> GumbelState:
        """Draw weights from N(0, 1/D), rows from N(0, 1); z_e is not read."""
        del z_e, mask
        weights_key, rows_key = jax.random.split(key)
        shape = (self.dim, self.num_codes)
        weights = jax.random.normal(weights_key, shape, jnp.float32)
        return GumbelState(
            weights / math.sqrt(self.dim),
            jnp.zeros(self.num_codes, jnp.float32),
            jax.random.normal(rows_key, shape[::-1], jnp.float32),
        )

    def quantize(
        self,
        state: GumbelState,
        z_e: Float[Array, "*batch D"],
        mask: Bool[Array, "*batch"] | None = None,
        key: PRNGKeyArray | None = None,
    ) -> Quantized:
        """Replace each vector by the row of a code that its logits draw.

        With noise g of a key, the code is argmax(logits + g), a sample of q(k|x);
        without, the most probable one. In the gradient of z_q = sum_k y_k e_k, the
        row of the code has y_k = 1, and the logits have the slope of
        y = softmax((logits + g) / tau).

        The loss is `kl`, KL(q(k|x) || uniform) = log K - H(q) >= 0, in nats per code.
        Its gradient reaches z_e and the map to logits, which belongs to the encoder,
        and no row.

        Args:
          state: the map to logits, and the rows.
          z_e: `[..., D]`, any float dtype; logits and losses are float32. Memory grows
            with N times K: the gradient reaches every logit.
          mask: `[...]`, False at padding, whose losses are then 0.
          key: draws the noise; another one for each device of a pmap or shard_map.

        Raises:
          ValueError: the last axis of z_e is not D, or the mask has another shape.
        """
        require_mask(mask, z_e)
        require_features(z_e, self.dim)
        vectors = z_e.astype(jnp.float32)
        if mask is not None:
            # NaN of padding would reach the gradient of the weights.
            vectors = jnp.where(mask[..., None], vectors, 0.0)
        logits = matmul(vectors, state.logit_weights)
        logits += jnp.broadcast_to(state.logit_bias, logits.shape)
        kl = _kl_to_uniform(logits)[..., None]
        if mask is not None:
            kl = jnp.where(mask[..., None], kl, 0.0)
        if key is not None:
            logits += jax.random.gumbel(key, logits.shape, jnp.float32)
        codes = jnp.argmax(logits, axis=-1)[..., None].astype(jnp.int32)
        y = jax.nn.softmax(logits / self.temperature)
        mean = matmul(y, lax.stop_gradient(state.embeddings))
        z_q = straight_through(mean, self.lookup(state, codes))
        losses = {"kl": kl}
        loss = self.total_loss(losses).mean(axis=-1)
        return Quantized(z_q.astype(z_e.dtype), codes, losses, loss)

    def lookup(
        self, state: GumbelState, codes: Int[Array, "*batch 1"]
    ) -> Float[Array, "*batch D"]:
        """Return the rows of codes, `[..., 1]` -> `[..., D]` float32.

        Raises:
          ValueError: the last axis of codes is not 1.
        """
        require_codes(codes, 1)
        return gather_rows(state.embeddings[None], codes)[..., 0, :]

    def total_loss(self, losses: Mapping[str, Any]) -> Any:
        """Return the weighted KL term."""
        return self.kl_weight * losses["kl"]

    def trainable(self, state: GumbelState) -> GumbelState:
        """Return True for all arrays."""
        del state
        return GumbelState(logit_weights=True, logit_bias=True, embeddings=True)

    def codebooks(self, state: GumbelState) -> Float[Array, "1 K D"]:
        """Return the rows."""
        return state.embeddings[None]


def _kl_to_uniform(logits: Float[Array, "*batch K"]) -> Float[Array, "*batch"]:
    log_q = jax.nn.log_softmax(logits)
    kl = jnp.sum(jnp.exp(log_q) * (log_q + math.log(logits.shape[-1])), axis=-1)
    # Rounding may leave it just below 0.
    return jnp.maximum(kl, 0.0)
