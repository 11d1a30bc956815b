"""Vector quantization with a frozen codebook behind a learned linear map."""

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
from vqvae_jax.quantizers.codebook import Codebook, from_embeddings
from vqvae_jax.quantizers.primitives import matmul
from vqvae_jax.quantizers.vq import VQ


class SimVQState(NamedTuple):
    """The two factors of the codebook.

    Attributes:
      base: `[K, D]` float32, frozen.
      weights: `[D, D]` float32, W, trained by the codebook loss. The rows are base W.
    """

    base: Float[Array, "K D"]
    weights: Float[Array, "D D"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SimVQ(InitFromKey):
    """The nearest row of base W: a frozen base, a learned W (Zhu et al. 2024).

    A step on W moves all rows, the unused ones too, so that no code should die. On
    digits, in 600 steps, 40, 18 and 4 % of K = 512, 2 048 and 16 384 codes were in use,
    and images were 2 dB below those of an EMA codebook: docs/which_quantizer.md.

    Attributes:
      num_codes: K, rows of the codebook.
      dim: D, features of a row and of z_e.
      beta: weight of the commitment loss, a mean over D.
    """

    num_codes: Annotated[int, ">= 1"] = 512
    dim: Annotated[int, ">= 1"] = 64
    beta: Annotated[float, ">= 0"] = 0.25

    def __post_init__(self):
        """Check every option; UserError, a ValueError, names the first wrong one."""
        options.check(self)

    def init(
        self,
        key: PRNGKeyArray,
        z_e: Float[Array, "*batch D"] | None = None,
        mask: Bool[Array, "*batch"] | None = None,
    ) -> SimVQState:
        """Draw the base from N(0, 1/D), with W the identity; z_e is not read."""
        del z_e, mask
        base = jax.random.normal(key, (self.num_codes, self.dim), jnp.float32)
        return SimVQState(
            base / math.sqrt(self.dim), jnp.eye(self.dim, dtype=jnp.float32)
        )

    def quantize(
        self,
        state: SimVQState,
        z_e: Float[Array, "*batch D"],
        mask: Bool[Array, "*batch"] | None = None,
        key: PRNGKeyArray | None = None,
    ) -> Quantized:
        """Replace each vector by the nearest row, as `VQ.quantize` does.

        The losses are those of `VQ`: `codebook`, `|sg[z_e] - e|^2 / D`, whose gradient
        reaches W only, and `commitment`, `|z_e - sg[e]|^2 / D`, whose gradient reaches
        z_e only.

        Args:
          state: the factors of the codebook.
          z_e: `[..., D]`, any float dtype; distances and losses are float32.
          mask: `[...]`, False at padding, whose losses are then 0.
          key: unused: nothing is drawn.

        Raises:
          ValueError: the last axis of z_e is not D, or the mask has another shape.
        """
        return self._vq.quantize(_codebook(state), z_e, mask, key)

    def lookup(
        self, state: SimVQState, codes: Int[Array, "*batch 1"]
    ) -> Float[Array, "*batch D"]:
        """Return the rows of codes, `[..., 1]` -> `[..., D]` float32.

        Raises:
          ValueError: the last axis of codes is not 1.
        """
        return self._vq.lookup(_codebook(state), codes)

    def total_loss(self, losses: Mapping[str, Any]) -> Any:
        """Return the codebook loss plus beta times the commitment loss."""
        return self._vq.total_loss(losses)

    def trainable(self, state: SimVQState) -> SimVQState:
        """Return True for W, False for the base."""
        del state
        return SimVQState(base=False, weights=True)

    def codebooks(self, state: SimVQState) -> Float[Array, "1 K D"]:
        """Return the rows."""
        return _codebook(state).embeddings

    @property
    def _vq(self) -> VQ:
        return VQ(num_codes=self.num_codes, dim=self.dim, beta=self.beta)


def _codebook(state: SimVQState) -> Codebook:
    # The whole product also where few rows are read: another shape of the product
    # could round differently, and `lookup` would not return z_q to the last bit.
    rows = matmul(lax.stop_gradient(state.base), state.weights)
    return from_embeddings(rows[None])
