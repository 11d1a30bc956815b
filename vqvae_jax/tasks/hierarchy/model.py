"""The second VQ-VAE of section 4.2: a frame's codes as three, 27 bits.

Its encoder reads the codes of the first VQ-VAE, 21x21 of 512 in the paper, and makes 3
vectors of them, each quantized by a codebook of its own; its decoder is a PixelCNN over
the first VQ-VAE's codes. An autoregressive decoder can do without latents, and those of
a VAE collapse beside it. Here q(z|x) is one code, so its KL to the uniform prior is
3 log K whatever the encoder says: nothing is gained by saying less.

    hierarchy = Hierarchy(grid=(21, 21, 1), num_codes=512)
    params = hierarchy.init(key, batch)
    global_codes = hierarchy.encode(params, codes)             # [B, 3]
    codes = hierarchy.decode(params, key, global_codes)        # drawn, [B, 21, 21, 1]

A batch is a dict of `codes` `[B, H, W, C]` int32 and `mask` `[B]` bool.
"""

import dataclasses
import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from vqvae_jax import metrics, quantizers
from vqvae_jax.models.autoencoder import mean_of_each
from vqvae_jax.models.bottleneck import (
    Bottleneck,
    Carry,
    TrainedWithCodebook,
    shared_options,
)
from vqvae_jax.runtime.arrays import AnyArray, require_range, require_shape
from vqvae_jax.runtime.errors import require
from vqvae_jax.tasks.hierarchy.global_latents import GlobalLatents, Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hierarchy(TrainedWithCodebook, GlobalLatents):
    """Sizes and options of the second VQ-VAE, beside those of any global latents.

    Attributes:
      latent_codes: K of each latent's own codebook.
      beta: weight of the commitment loss (equation 3).
      codebook_update: "loss" for the second term of equation 3, "ema" for appendix A.1.
      ema_decay: gamma of the EMA, and of the running counts in either case.
      codebook_init: "kmeans" on the first batch's z_e, or "uniform".
      restart_below: restart codes used less often than this a step; 0 for never. A
        frame uses one code of each codebook, so B / K is the mean use.
    """

    latent_codes: int = 512
    beta: float = 0.25
    codebook_update: str = "loss"
    ema_decay: float = 0.99
    codebook_init: str = "kmeans"
    restart_below: float = 0.0

    def __post_init__(self):
        """Check every option, so that a mistake is told before anything is built."""
        super().__post_init__()
        require(
            # One code has no bits, and none of what is measured a meaning.
            self.latent_codes >= 2,
            f"latent_codes must be at least 2, got {self.latent_codes}",
        )
        _ = self._bottleneck

    @property
    def bits_per_frame(self) -> float:
        """What the global code of a frame costs under the uniform prior: 27 bits."""
        return self.latents * math.log2(self.latent_codes)

    def init(self, key: PRNGKeyArray, batch: Mapping[str, Array]) -> Params:
        """Initialise networks at random, and the codebooks from the batch's z_e."""
        networks_key, codebook_key, kmeans_key = jax.random.split(key, 3)
        codes = batch["codes"]
        params = self._init_networks(networks_key, codes, heads=1)
        codebook = self._bottleneck.init(
            codebook_key,
            kmeans_key,
            lambda: self._encoded(params, codes, heads=1),
            batch["mask"],
        )
        return params._replace(codebook=codebook)

    def loss(
        self, params: Params, key: PRNGKeyArray, batch: Mapping[str, Array]
    ) -> tuple[Float[Array, ""], tuple[metrics.Metrics, Carry]]:
        """Return equation 3 of whole frames, divided by the codes of a frame.

        Its first term, -log p(codes | z_q), is the sum over a frame's codes, as x is
        the whole frame; the other two are means over the latents. With the mean over
        the codes as first term, the latents' terms would weigh 441 times more: all that
        27 bits can save is 0.06 bits a code, and the encoder would sooner map every
        frame to one place, where commitment costs nothing. Dividing all of it makes
        losses and gradients comparable with those of `Prior`.
        """
        quantized, terms, carry = self._forward(params, batch, dropout_key=key)
        loss = metrics.masked_mean(
            self._objective(terms), batch["mask"], batch.get("global_mask")
        )
        return loss, (self._metrics(quantized, terms, batch["mask"]), carry)

    def evaluate(self, params: Params, batch: Mapping[str, Array]) -> metrics.Metrics:
        """Return the terms of the loss, bits per code and code usage, without dropout.

        Bits per code are the PixelCNN's; those of the latents come on top.
        """
        quantized, terms, _ = self._forward(params, batch)
        mask = batch["mask"]
        loss = metrics.mean(self._objective(terms), mask)
        return {**self._metrics(quantized, terms, mask), "loss": loss}

    def encode(
        self, params: Params, codes: Int[AnyArray, "B H W C"]
    ) -> Int[Array, "B L"]:
        """Return the global codes of frames.

        Raises:
          UserError: the codes are not grids of this model.
        """
        z_e = self._encoded(params, codes, heads=1)
        return quantizers.quantize(params.codebook, z_e).codes

    @property
    def _bottleneck(self) -> Bottleneck:
        options = shared_options(self)
        sizes = {"num_codes": self.latent_codes, "num_codebooks": self.latents}
        return Bottleneck(**options | sizes)

    def _check_latents(self, latents: AnyArray) -> None:
        require_shape("global codes", latents, "B", self.latents)
        require_range("global codes", latents, 0, self.latent_codes)

    def _vectors(self, params: Params, latents: AnyArray) -> Float[Array, "B N"]:
        return quantizers.lookup(params.codebook, jnp.asarray(latents))

    def _forward(self, params, batch, dropout_key=None):
        """Encode, quantize and decode; terms are for each frame, unweighted."""
        codes, mask = batch["codes"], batch["mask"]
        z_e = self._encoded(params, codes, heads=1)
        quantized = quantizers.quantize(params.codebook, z_e, mask)
        terms = {
            "reconstruction": self._nats(params, codes, quantized.z_q, dropout_key),
            "codebook": mean_of_each(quantized.codebook_loss),
            "commitment": mean_of_each(quantized.commitment_loss),
        }
        return quantized, terms, Carry(lax.stop_gradient(z_e), quantized.codes, mask)

    def _objective(self, terms) -> Float[Array, " B"]:
        return self._per_code(
            terms["reconstruction"] + self._bottleneck.objective(terms)
        )

    def _metrics(self, quantized, terms, mask) -> dict:
        used = metrics.code_usage(
            quantized.codes, num_codes=self.latent_codes, mask=mask
        )
        return {
            **self._bits_per_code(terms["reconstruction"], mask),
            "codebook": metrics.mean(terms["codebook"], mask),
            "commitment": metrics.mean(terms["commitment"], mask),
            "usage": used,
        }
