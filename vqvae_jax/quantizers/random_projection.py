"""Codes of a frozen random projection and a frozen random codebook."""

import dataclasses
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
    normalize,
    require_codes,
    require_features,
    require_mask,
)
from vqvae_jax.quantizers.primitives import matmul, straight_through
from vqvae_jax.quantizers.search import nearest
from vqvae_jax.runtime.errors import require


class RandomProjectionState(NamedTuple):
    """The frozen arrays; nothing moves them.

    Attributes:
      projection: `[F, D]` float32, A, with orthonormal columns.
      codebook: `[K, D]` float32, rows e_k of norm 1.
    """

    projection: Float[Array, "F D"]
    codebook: Float[Array, "K D"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RandomProjection(InitFromKey):
    """The random-projection quantizer of BEST-RQ (Chiu et al. 2022, section 3.1).

    The code of z_e is that of the row nearest to `A^T z_e / |A^T z_e|`, equation 1.
    Nothing is learned: the codes are targets for self-supervised training, or a
    baseline. Normalise z_e to mean 0 and variance 1 first, as the paper does, so that
    many codes are in use.

    The paper needs no z_q. Here it is A e_k, the shortest vector with the projection
    e_k. A has orthonormal columns in place of the paper's Xavier entries, so that
    A^T A e_k = e_k: z_q has the code k itself.

    Attributes:
      num_codes: K, rows of the codebook.
      dim: F, features of z_e.
      code_dim: D, features of a row, at most F.
    """

    num_codes: Annotated[int, ">= 1"] = 512
    dim: Annotated[int, ">= 1"] = 64
    code_dim: Annotated[int, ">= 1"] = 16

    def __post_init__(self):
        """Check every option; UserError, a ValueError, names the first wrong one."""
        options.check(self)
        require(
            self.code_dim <= self.dim,
            f"code_dim must be at most dim = {self.dim}, got {self.code_dim}",
        )

    def init(
        self,
        key: PRNGKeyArray,
        z_e: Float[Array, "*batch F"] | None = None,
        mask: Bool[Array, "*batch"] | None = None,
    ) -> RandomProjectionState:
        """Draw the projection, and rows uniform on the sphere; z_e is not read."""
        del z_e, mask
        projection_key, rows_key = jax.random.split(key)
        shape = (self.dim, self.code_dim)
        projection = jax.random.normal(projection_key, shape, jnp.float32)
        rows = (self.num_codes, self.code_dim)
        return RandomProjectionState(
            jnp.linalg.qr(projection)[0],
            normalize(jax.random.normal(rows_key, rows, jnp.float32)),
        )

    def quantize(
        self,
        state: RandomProjectionState,
        z_e: Float[Array, "*batch F"],
        mask: Bool[Array, "*batch"] | None = None,
        key: PRNGKeyArray | None = None,
    ) -> Quantized:
        """Return codes, and rows mapped back, straight-through; there are no losses.

        Args:
          state: the frozen arrays.
          z_e: `[..., F]`, any float dtype; distances are float32.
          mask: `[...]`, False at padding; unused, since there are no losses.
          key: unused: nothing is drawn.

        Raises:
          ValueError: the last axis of z_e is not F, or the mask has another shape.
        """
        del key
        require_mask(mask, z_e)
        require_features(z_e, self.dim)
        vectors = lax.stop_gradient(z_e).astype(jnp.float32)
        vectors = normalize(matmul(vectors, state.projection))
        codes = nearest(state.codebook[None], vectors[..., None, :])
        z_q = straight_through(z_e, self.lookup(state, codes).astype(z_e.dtype))
        return Quantized(z_q, codes, {}, jnp.zeros(z_e.shape[:-1], jnp.float32))

    def lookup(
        self, state: RandomProjectionState, codes: Int[Array, "*batch 1"]
    ) -> Float[Array, "*batch F"]:
        """Return A e_k of codes, `[..., 1]` -> `[..., F]` float32; no gradient.

        Raises:
          ValueError: the last axis of codes is not 1.
        """
        require_codes(codes, 1)
        return gather_rows(self.codebooks(state), codes)[..., 0, :]

    def total_loss(self, losses: Mapping[str, Any]) -> Any:
        """Return 0, the sum of no terms."""
        del losses
        return 0.0

    def trainable(self, state: RandomProjectionState) -> RandomProjectionState:
        """Return False for all arrays."""
        del state
        return RandomProjectionState(projection=False, codebook=False)

    def codebooks(self, state: RandomProjectionState) -> Float[Array, "1 K F"]:
        """Return A e_k of each code."""
        rows, projection = lax.stop_gradient((state.codebook, state.projection))
        return matmul(rows, projection.T)[None]
