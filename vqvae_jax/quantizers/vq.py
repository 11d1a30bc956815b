"""Vector quantization with codebooks (section 3 and appendix A.1)."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from vqvae_jax import options
from vqvae_jax.quantizers import estimators
from vqvae_jax.quantizers.base import AxisName, Quantized
from vqvae_jax.quantizers.codebook import (
    Codebook,
    Distance,
    from_embeddings,
    gather_rows,
    init_uniform,
    normalize,
    normalize_groups,
    require_mask,
    split_groups,
    unit_rows,
)
from vqvae_jax.quantizers.ema import count_update, ema_update
from vqvae_jax.quantizers.kmeans import kmeans, restart
from vqvae_jax.quantizers.primitives import vary_like
from vqvae_jax.quantizers.regularizers import entropy_deficit, squared_cosines
from vqvae_jax.quantizers.search import nearest
from vqvae_jax.runtime.errors import require


@dataclasses.dataclass(frozen=True, kw_only=True)
class VQ:
    """The paper's quantizer, the nearest row of a codebook, with the field's options.

    G codebooks quantize G consecutive groups of D features; G = 1 is the paper's plain
    case. The state is a `Codebook`.

    Attributes:
      num_codes: K, rows of each codebook.
      dim: D, features of a row.
      num_codebooks: G, number of codebooks; z_e has G D features.
      beta: weight of the commitment loss (equation 3), a mean over D.
      distance: "euclidean", or "cosine", which normalises vectors and rows (ViT-VQGAN,
        Yu et al. 2022, section 3.2): z_q and all terms are of the normalised ones.
      estimator: how the gradient of z_q reaches z_e: "straight_through"; "rotation",
        the rotation trick, no better on digits (docs/which_quantizer.md); "diveq",
        which is made for codebook_update="gradient" and draws noise where `quantize`
        has a key (`quantizers.estimators`).
      noise_variance: sigma^2 of the noise of "diveq".
      codebook_update: "loss" for the second term of equation 3, "ema" for appendix A.1,
        "gradient" for the gradient of z_q, which then reaches the rows too.
      ema_decay: gamma of the EMA, and of the running counts in either case.
      entropy_weight: weight of the `entropy` term of `quantize`; 0 for no such term.
      entropy_temperature: of the soft codes, in units of the commitment loss.
      orthogonality_weight: weight of the rows' squared cosines; 0 for no such term.
      codebook_init: "kmeans" on the first z_e, or "uniform" in [-1/K, 1/K].
      dead_code_threshold: restart codes used less often than this an update, on
        average, from vectors of the batch; 0 for never.
    """

    num_codes: Annotated[int, ">= 1"] = 512
    dim: Annotated[int, ">= 1"] = 64
    num_codebooks: Annotated[int, ">= 1"] = 1
    beta: Annotated[float, ">= 0"] = 0.25
    distance: Distance = "euclidean"
    estimator: Literal["straight_through", "rotation", "diveq"] = "straight_through"
    noise_variance: Annotated[float, ">= 0"] = 1e-3
    codebook_update: Literal["loss", "ema", "gradient"] = "loss"
    entropy_weight: Annotated[float, ">= 0"] = 0.0
    entropy_temperature: Annotated[float, "> 0"] = 0.01
    orthogonality_weight: Annotated[float, ">= 0"] = 0.0
    ema_decay: Annotated[float, ">= 0", "< 1"] = 0.99
    codebook_init: Literal["kmeans", "uniform"] = "kmeans"
    dead_code_threshold: Annotated[float, ">= 0"] = 0.0

    def __post_init__(self):
        """Check every option; UserError, a ValueError, names the first wrong one."""
        options.check(self)
        require(
            self.orthogonality_weight == 0 or self.codebook_update != "ema",
            "orthogonality_weight must be 0 with codebook_update=ema: the rows then "
            "follow no gradient",
        )

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

        Inside of a pmap or shard_map each device would fit its own: call `init` outside
        of it, or `kmeans` with an `axis_name`.

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
            if self._is_cosine:
                return from_embeddings(normalize(codebook.embeddings))
            return codebook
        if z_e is None:
            raise ValueError('codebook_init="kmeans" needs z_e in init')
        return kmeans(key, codebook, z_e, distance=self.distance, mask=mask)

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
        choice whatever D (docs/conformance.md, row 1). With the cosine distance they
        are `|z^ - e^|^2 = 2 - 2 cos` of normalised vectors, without the division: the
        elements of those shrink as D grows.

        With their weights above 0 there are two more. `entropy`, in nats, whose mean is
        from 0 to log K, reaches z_e only: the entropy of a vector's soft codes,
        softmax(-commitment / temperature) over the rows, plus log K minus the entropy
        of their mean over the vectors of this call, which on several devices with
        pmap or shard_map are one device's; each entry has the latter whole.
        `orthogonality`, from 0 to 1, reaches the codebook only: the mean squared
        cosine of different rows, the same in each entry.

        Args:
          state: the codebooks.
          z_e: `[..., G*D]`, any float dtype; distances and losses are float32.
          mask: `[...]`, False at padding, whose losses are then 0 (its codes are still
            the nearest ones).
          key: draws the noise of estimator="diveq", with which z_q is not exactly the
            rows, another key for each device of a pmap or shard_map; without a key, and
            with other estimators, nothing is drawn.

        Raises:
          ValueError: the last axis of z_e is not G*D, or the mask has another shape.
        """
        require_mask(mask, z_e)
        vectors = split_groups(state, z_e)
        if self._is_cosine:
            vectors = normalize(vectors)
        embeddings = self.codebooks(state)
        codes = nearest(embeddings, vectors)
        rows = gather_rows(embeddings, codes)
        z_q = self._estimate(z_e, vectors, rows, key)
        if mask is not None:
            # Before the squares: 0 times the slope of a square at NaN would be NaN.
            vectors = jnp.where(mask[..., None, None], vectors, 0.0)
        losses = {
            "codebook": self._square(lax.stop_gradient(vectors) - rows),
            "commitment": self._square(vectors - lax.stop_gradient(rows)),
        }
        if self.entropy_weight > 0:
            elements = 1 if self._is_cosine else self.dim
            losses["entropy"] = entropy_deficit(
                embeddings,
                vectors,
                temperature=self.entropy_temperature * elements,
                mask=mask,
            )
        if self.orthogonality_weight > 0:
            of_rows = squared_cosines(vary_like(embeddings, codes))
            losses["orthogonality"] = jnp.broadcast_to(of_rows, codes.shape)
        if mask is not None:
            losses = {k: jnp.where(mask[..., None], v, 0.0) for k, v in losses.items()}
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

        With the cosine distance the rows are normalised, after an optimiser's step too.

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
        if self._is_cosine:
            z_e = normalize_groups(state, z_e)
        if self.codebook_update == "ema":
            state = ema_update(state, z_e, codes, decay=self.ema_decay, **shared)
            state = state._replace(embeddings=self.codebooks(state))
        else:
            state = state._replace(embeddings=self.codebooks(state))
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
        rows = gather_rows(self.codebooks(state), codes)
        return rows.reshape(*codes.shape[:-1], num_codebooks * dim)

    def total_loss(self, losses: Mapping[str, Any]) -> Any:
        """Return the weighted sum of the terms, equation 3 by default.

        The second term of equation 3 counts with codebook_update="loss" only; the EMA
        and the gradient of z_q replace it.
        """
        total = self.beta * losses["commitment"]
        if self.codebook_update == "loss":
            total = total + losses["codebook"]
        if self.entropy_weight > 0:
            total = total + self.entropy_weight * losses["entropy"]
        if self.orthogonality_weight > 0:
            total = total + self.orthogonality_weight * losses["orthogonality"]
        return total

    def trainable(self, state: Codebook) -> Codebook:
        """Return True for the embeddings unless the EMA moves them, else False."""
        del state
        return Codebook(self.codebook_update != "ema", False, False)

    def inference_state(self, state: Codebook) -> Float[Array, "G K D"]:
        """Return the embeddings."""
        return state.embeddings

    def codebooks(self, state: Codebook) -> Float[Array, "G K D"]:
        """Return the embeddings, normalised with the cosine distance."""
        if not self._is_cosine:
            return state.embeddings
        return unit_rows(state.embeddings)

    @property
    def _is_cosine(self) -> bool:
        return self.distance == "cosine"

    def _estimate(
        self,
        z_e: Float[Array, "*batch GD"],
        vectors: Float[Array, "*batch G D"],
        rows: Float[Array, "*batch G D"],
        key: PRNGKeyArray | None,
    ) -> Float[Array, "*batch GD"]:
        """Return the rows with the estimator's gradient, like z_e."""
        if self.codebook_update != "gradient":
            rows = lax.stop_gradient(rows)

        def like_z_e(x):
            return x.reshape(z_e.shape).astype(z_e.dtype)

        if self.estimator == "rotation":
            return like_z_e(estimators.rotation(vectors, rows))
        if self.estimator == "diveq":
            noise = {"noise_variance": self.noise_variance, "key": key}
            return like_z_e(estimators.diveq(vectors, rows, **noise))
        z = like_z_e(vectors) if self._is_cosine else z_e
        return estimators.straight_through(z, like_z_e(rows))

    def _square(self, x: Float[Array, "*batch D"]) -> Float[Array, "*batch"]:
        """Return |x|^2 in the units of the losses."""
        reduce = jnp.sum if self._is_cosine else jnp.mean
        return reduce(jnp.square(x), axis=-1)
