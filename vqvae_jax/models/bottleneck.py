"""The discrete bottleneck that VQ-VAEs share, of images as of codes.

How codebooks start, what moves them, and what they add to the loss (section 3 and
appendix A.1). `quantizer` has the functions; this holds the choice among them.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from vqvae_jax import quantizers
from vqvae_jax.runtime.errors import require


class Carry(NamedTuple):
    """What a step's forward pass hands to `Bottleneck.update`.

    z_e: `[..., G*D]` the encoder's output.
    codes: `[..., G]`.
    mask: `[...]`, False at what only fills up the batch.
    """

    z_e: Float[Array, "*latents GD"]
    codes: Int[Array, "*latents G"]
    mask: Bool[Array, "*latents"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bottleneck:
    """Sizes of the codebooks and how they are trained.

    Attributes:
      num_codes: K, rows of each codebook.
      num_codebooks: G.
      dim: D, numbers in a row.
      beta: weight of the commitment loss (equation 3).
      codebook_update: "loss" for the second term of equation 3, "ema" for appendix A.1.
      ema_decay: gamma of the EMA, and of the running counts in either case.
      codebook_init: "kmeans" on the first batch's z_e, or "uniform".
      restart_below: restart codes used less often than this a step; 0 for never.
    """

    num_codes: int
    num_codebooks: int
    dim: int
    beta: float
    codebook_update: str
    ema_decay: float
    codebook_init: str
    restart_below: float

    def __post_init__(self):
        """Check every option, so that a mistake is told before anything is built."""
        for low, names in (
            (1, ("num_codes", "num_codebooks", "dim")),
            (0, ("beta", "restart_below")),
        ):
            for name in names:
                value = getattr(self, name)
                require(value >= low, f"{name} must be at least {low}, got {value}")
        require(
            0 <= self.ema_decay < 1,
            f"ema_decay must be in [0, 1), got {self.ema_decay}",
        )
        for name, choices in (
            ("codebook_update", ("loss", "ema")),
            ("codebook_init", ("kmeans", "uniform")),
        ):
            value = getattr(self, name)
            require(
                value in choices,
                f"{name} must be one of {', '.join(choices)}, got {value!r}",
            )

    def init(
        self,
        codebook_key: PRNGKeyArray,
        kmeans_key: PRNGKeyArray,
        z_e: Callable[[], Float[Array, "*latents GD"]],
        mask: Bool[Array, "*latents"],
    ) -> quantizers.Codebook:
        """Draw codebooks, and fit them to `z_e()` where they start from k-means."""
        codebook = quantizers.init(
            codebook_key,
            num_codes=self.num_codes,
            dim=self.dim,
            num_codebooks=self.num_codebooks,
        )
        if self.codebook_init == "uniform":
            return codebook
        return quantizers.kmeans(kmeans_key, codebook, z_e(), mask=mask)

    def trainable(self) -> quantizers.Codebook:
        """Mark with True what follows the gradient."""
        return quantizers.Codebook(self.codebook_update == "loss", False, False)

    def objective(self, terms: Mapping[str, Any]) -> Float[Array, "*batch"]:
        """Return what the codebooks add to a loss: terms 2 and 3 of equation 3."""
        commitment = self.beta * terms["commitment"]
        # With the EMA variant the codebook has no loss (appendix A.1).
        if self.codebook_update == "ema":
            return commitment
        return commitment + terms["codebook"]

    def update(
        self,
        codebook: quantizers.Codebook,
        key: PRNGKeyArray,
        carry: Carry,
        *,
        axis_name: str | tuple[str, ...] | None = None,
    ) -> quantizers.Codebook:
        """Do to the codebooks what the gradient does not: EMA, counts, restarts."""
        z_e, codes, mask = carry
        move = (
            quantizers.ema_update
            if self.codebook_update == "ema"
            else _count_update_of_codes
        )
        shared = {"mask": mask, "axis_name": axis_name}
        codebook = move(codebook, z_e, codes, decay=self.ema_decay, **shared)
        if self.restart_below > 0:
            codebook = quantizers.restart(
                key, codebook, z_e, min_count=self.restart_below, **shared
            )
        return codebook


class TrainedWithCodebook:
    """The part of the training loop's protocol of models with a bottleneck.

    They have it as `_bottleneck`, and params that are a NamedTuple with a `codebook`.
    """

    def trainable(self, params: Any) -> Any:
        """Mark with True the leaves that follow the gradient."""
        everything = jax.tree.map(lambda _: True, params)
        return everything._replace(codebook=self._bottleneck.trainable())

    def update(
        self,
        params: Any,
        key: PRNGKeyArray,
        carry: Carry,
        *,
        axis_name: str | tuple[str, ...] | None = None,
    ) -> Any:
        """Do to the codebook what the gradient does not: EMA, counts, restarts."""
        codebook = self._bottleneck.update(
            params.codebook, key, carry, axis_name=axis_name
        )
        return params._replace(codebook=codebook)


def shared_options(model: Any) -> dict[str, Any]:
    """Return the options of a bottleneck that a model has under the same names."""
    fields = (field.name for field in dataclasses.fields(Bottleneck))
    return {name: getattr(model, name) for name in fields if hasattr(model, name)}


def _count_update_of_codes(codebook, z_e, codes, **options):
    del z_e  # The loss has moved the embeddings already.
    return quantizers.count_update(codebook, codes, **options)
