"""Vector quantization with codebooks (section 3 and appendix A.1)."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from vqvae_jax import options
from vqvae_jax.quantizers.base import AxisName, Quantized
from vqvae_jax.quantizers.codebook import (
    Codebook,
    gather_rows,
    init_uniform,
    require_mask,
    split_groups,
)
from vqvae_jax.quantizers.ema import count_update, ema_update
from vqvae_jax.quantizers.kmeans import kmeans, restart
from vqvae_jax.quantizers.search import nearest


@dataclasses.dataclass(frozen=True, kw_only=True)
class VQ:
    """The paper's quantizer: the nearest row of a codebook, straight-through.

    G codebooks quantize G consecutive groups of D features; G = 1 is the paper's plain
    case. The state is a `Codebook`.

    Attributes:
      num_codes: K, rows of each codebook.
      dim: D, features of a row.
      num_codebooks: G, number of codebooks; z_e has G D features.
      beta: weight of the commitment loss (equation 3), a mean over D.
      codebook_update: "loss" for the second term of equation 3, "ema" for appendix A.1.
      ema_decay: gamma of the EMA, and of the running counts in either case.
      codebook_init: "kmeans" on the first z_e, or "uniform" in [-1/K, 1/K].
      dead_code_threshold: restart codes used less often than this an update, on
        average, from vectors of the batch; 0 for never.
    """

    num_codes: Annotated[int, ">= 1"] = 512
    dim: Annotated[int, ">= 1"] = 64
    num_codebooks: Annotated[int, ">= 1"] = 1
    beta: Annotated[float, ">= 0"] = 0.25
    codebook_update: Literal["loss", "ema"] = "loss"
    ema_decay: Annotated[float, ">= 0", "< 1"] = 0.99
    codebook_init: Literal["kmeans", "uniform"] = "kmeans"
    dead_code_threshold: Annotated[float, ">= 0"] = 0.0

    def __post_init__(self):
        """Check every option; UserError, a ValueError, names the first wrong one."""
        options.check(self)

    @property
    def codes_per_vector(self) -> int:
        """C, which is G."""
        return self.num_codebooks

    @property
    def features(self) -> int:
        """Features of z_e, G*D."""
        return self.num_codebooks * self.dim

    @property
    def bits(self) -> float:
        """Bits of one vector's codes under the uniform prior, G log2 K."""
        return self.num_codebooks * math.log2(self.num_codes)

    @property
    def init_reads_data(self) -> bool:
        """Whether `init` needs z_e."""
        return self.codebook_init == "kmeans"

    def init(
        self,
        key: PRNGKeyArray,
        z_e: Float[Array, "*batch GD"] | None = None,
        mask: Bool[Array, "*batch"] | None = None,
    ) -> Codebook:
        """Draw the codebooks uniformly, or fit them to z_e by k-means.

        Args:
          key: decides the draw.
          z_e: `[..., G*D]`, data for k-means; fewer vectors than codes are allowed.
          mask: `[...]`, False at padding.

        Raises:
          ValueError: k-means is asked for and z_e is missing or of another width.
        """
        codebook = init_uniform(
            key,
            num_codes=self.num_codes,
            dim=self.dim,
            num_codebooks=self.num_codebooks,
        )
        if not self.init_reads_data:
            return codebook
        if z_e is None:
            raise ValueError('codebook_init="kmeans" needs z_e in init')
        return kmeans(key, codebook, z_e, mask=mask)

    def quantize(
        self,
        state: Codebook,
        z_e: Float[Array, "*batch GD"],
        mask: Bool[Array, "*batch"] | None = None,
        key: PRNGKeyArray | None = None,
    ) -> Quantized:
        """Replace each vector by the nearest row of its codebook (equations 1 and 2).

        The losses are `codebook`, `|sg[z_e] - e|^2 / D`, the second term of equation 3,
        whose gradient reaches the codebook only, and `commitment`,
        `|z_e - sg[e]|^2 / D`, the third term without its beta, whose gradient reaches
        z_e only. Means over D, as in the authors' own code, make beta = 0.25 a good
        choice whatever D (docs/conformance.md, row 1).

        Args:
          state: the codebooks.
          z_e: `[..., G*D]`, any float dtype; distances and losses are float32.
          mask: `[...]`, False at padding, whose losses are then 0 (its codes are still
            the nearest ones).
          key: unused: nothing is drawn.

        Raises:
          ValueError: the last axis of z_e is not G*D, or the mask has another shape.
        """
        del key
        require_mask(mask, z_e)
        vectors = split_groups(state, z_e)
        codes = nearest(state.embeddings, vectors)
        rows = gather_rows(state.embeddings, codes)
        if mask is not None:
            # Before the squares: 0 times the slope of a square at NaN would be NaN.
            vectors = jnp.where(mask[..., None, None], vectors, 0.0)
        losses = {
            "codebook": _mean_square(lax.stop_gradient(vectors) - rows),
            "commitment": _mean_square(vectors - lax.stop_gradient(rows)),
        }
        if mask is not None:
            losses = {k: jnp.where(mask[..., None], v, 0.0) for k, v in losses.items()}
        z_q = lax.stop_gradient(rows).reshape(z_e.shape).astype(z_e.dtype)
        # z_e - sg[z_e] is exactly 0, so z_q stays equal to the rows to the last bit.
        z_q = z_q + (z_e - lax.stop_gradient(z_e))
        loss = self.total_loss(losses).mean(axis=-1)
        return Quantized(z_q, codes, losses, loss)

    def update(
        self,
        state: Codebook,
        z_e: Float[Array, "*batch GD"],
        codes: Int[Array, "*batch G"],
        *,
        key: PRNGKeyArray,
        mask: Bool[Array, "*batch"] | None = None,
        axis_name: AxisName = None,
    ) -> Codebook:
        """Move the codebooks by EMA or keep their counts, then restart dead codes.

        Args:
          state: the codebooks, after the optimiser's step.
          z_e: `[..., G*D]`, the vectors that were quantized.
          codes: `[..., G]`, their codes.
          key: draws the vectors that dead codes restart from; the same on all devices.
          mask: `[...]`, False at padding.
          axis_name: the mapped axes of a pmap, vmap or shard_map, to keep the codebooks
            of all devices equal. Under jit with sharded arrays leave it out.
        """
        shared = {"mask": mask, "axis_name": axis_name}
        if self.codebook_update == "ema":
            state = ema_update(state, z_e, codes, decay=self.ema_decay, **shared)
        else:
            state = count_update(state, codes, decay=self.ema_decay, **shared)
        if self.dead_code_threshold > 0:
            state = restart(
                key, state, z_e, min_count=self.dead_code_threshold, **shared
            )
        return state

    def lookup(
        self, state: Codebook, codes: Int[Array, "*batch G"]
    ) -> Float[Array, "*batch GD"]:
        """Return the rows of codes, `[..., G]` -> `[..., G*D]` float32.

        Raises:
          ValueError: the last axis of codes is not the codebooks.
        """
        num_codebooks, _, dim = state.embeddings.shape
        if codes.shape[-1] != num_codebooks:
            raise ValueError(
                f"the last axis of codes must be the {num_codebooks} codebooks, but "
                f"their shape is {codes.shape}"
            )
        rows = gather_rows(state.embeddings, codes)
        return rows.reshape(*codes.shape[:-1], num_codebooks * dim)

    def total_loss(self, losses: Mapping[str, Any]) -> Any:
        """Return terms 2 and 3 of equation 3; with the EMA there is no term 2."""
        commitment = self.beta * losses["commitment"]
        if self.codebook_update == "ema":
            return commitment
        return commitment + losses["codebook"]

    def trainable(self, state: Codebook) -> Codebook:
        """Return True for the embeddings if a loss moves them, False for the rest."""
        del state
        return Codebook(self.codebook_update == "loss", False, False)

    def inference_state(self, state: Codebook) -> Float[Array, "G K D"]:
        """Return the embeddings."""
        return state.embeddings

    def codebooks(self, state: Codebook) -> Float[Array, "G K D"]:
        """Return the embeddings."""
        return state.embeddings


def _mean_square(x: Float[Array, "*batch D"]) -> Float[Array, "*batch"]:
    return jnp.mean(jnp.square(x), axis=-1)
