"""The second VQ-VAE (section 4.2): a frame's codes as three codes, 27 bits.

The encoder maps the codes of the first VQ-VAE, 21x21 of 512 in the paper, to 3 vectors,
each quantized by its own codebook. The decoder is a PixelCNN over the first VQ-VAE's
codes. An autoregressive decoder can ignore its latents, and those of a VAE collapse.
Here q(z|x) is deterministic, so its KL to the uniform prior is the constant 3 log K:
the encoder gains nothing by encoding less.

    hierarchy = Hierarchy(grid=(21, 21, 1), num_codes=512)
    params = hierarchy.init(key, batch)
    global_codes = hierarchy.encode(params, codes)             # [B, 3]
    codes = hierarchy.decode(params, key, global_codes)        # drawn, [B, 21, 21, 1]

A batch is a dict of `codes` `[B, H, W, C]` int32 and `mask` `[B]` bool.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Annotated

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from vqvae_jax import metrics, quantizers
from vqvae_jax.models.autoencoder import mean_of_each
from vqvae_jax.models.base import Carry, TrainedWithQuantizer
from vqvae_jax.options import OneOf
from vqvae_jax.quantizers import VQ, Quantizer
from vqvae_jax.runtime.arrays import AnyArray, require_range, require_shape
from vqvae_jax.runtime.errors import require
from vqvae_jax.tasks.hierarchy.global_latents import GlobalLatents, Params
from vqvae_jax.tasks.hierarchy.vae import HierarchyVAE


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hierarchy(TrainedWithQuantizer, GlobalLatents):
    """The second VQ-VAE: global latents with a quantizer.

    Attributes:
      quantizer: of the encoder's output; the paper has three codebooks. A frame uses
        one code of each, so the mean use of a code is B / K per step.
    """

    quantizer: Annotated[Quantizer, OneOf(quantizers.MEMBERS)] = VQ(num_codebooks=3)

    def __post_init__(self):
        """Check every option; UserError names the first wrong one."""
        super().__post_init__()
        require(
            # A single code carries no bits, and the evaluation divides by them.
            self.quantizer.num_codes >= 2,
            f"quantizer.num_codes must be >= 2, got {self.quantizer.num_codes}",
        )

    @property
    def latents(self) -> int:
        """L, the global codes of a frame."""
        return self.quantizer.codes_per_vector

    @property
    def latent_codes(self) -> int:
        """K of each global code."""
        return self.quantizer.num_codes

    @property
    def latent_features(self) -> int:
        """N, the width of z."""
        return self.quantizer.features

    @property
    def continuous(self) -> HierarchyVAE:
        """The VAE with the same networks and width of z."""
        return HierarchyVAE(
            grid=self.grid,
            num_codes=self.num_codes,
            encoder=self.encoder,
            to_map=self.to_map,
            pixelcnn=self.pixelcnn,
            z_features=self.latent_features,
        )

    @property
    def bits_per_frame(self) -> float:
        """Bits of a frame's global codes under the uniform prior, 27 in the paper."""
        return self.latents * math.log2(self.latent_codes)

    def init(self, key: PRNGKeyArray, batch: Mapping[str, Array]) -> Params:
        """Initialise the networks at random, and the quantizer from the batch's z_e."""
        networks_key, codebook_key, kmeans_key = jax.random.split(key, 3)
        codes = batch["codes"]
        params = self._init_networks(networks_key, codes, heads=1)
        state = self._init_quantizer(
            codebook_key,
            kmeans_key,
            lambda: self._encoded(params, codes, heads=1),
            batch["mask"],
        )
        return params._replace(quantizer=state)

    def loss(
        self, params: Params, key: PRNGKeyArray, batch: Mapping[str, Array]
    ) -> tuple[Float[Array, ""], tuple[metrics.Metrics, Carry]]:
        """Return equation 3 of whole frames, divided by the codes of a frame.

        The first term, -log p(codes | z_q), is a sum over a frame's codes, as x is the
        whole frame; the other two are means over the latents. With the mean over the
        codes as first term, the latents' terms would weigh 441 times more: 27 bits save
        at most 0.06 bits per code, and the encoder would rather map every frame to one
        point, where the commitment loss is 0. Dividing the whole sum makes losses and
        gradients comparable with those of `Prior`.
        """
        quantized, terms, carry = self._forward(params, batch, dropout_key=key)
        loss = metrics.masked_mean(
            self._objective(terms), batch["mask"], batch.get("global_mask")
        )
        return loss, (self._metrics(quantized, terms, batch["mask"]), carry)

    def evaluate(self, params: Params, batch: Mapping[str, Array]) -> metrics.Metrics:
        """Return the terms of the loss, bits per code and code usage, without dropout.

        Bits per code are the PixelCNN's alone; the bits of the latents are extra.
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
          UserError: the codes do not have this model's grid.
        """
        z_e = self._encoded(params, codes, heads=1)
        return self.quantizer.quantize(params.quantizer, z_e).codes

    def _check_latents(self, latents: AnyArray) -> None:
        require_shape("global codes", latents, "B", self.latents)
        require_range("global codes", latents, 0, self.latent_codes)

    def _vectors(self, params: Params, latents: AnyArray) -> Float[Array, "B N"]:
        return self.quantizer.lookup(params.quantizer, jnp.asarray(latents))

    def _forward(self, params, batch, dropout_key=None):
        """Encode, quantize and decode; terms are per frame, unweighted."""
        codes, mask = batch["codes"], batch["mask"]
        z_e = self._encoded(params, codes, heads=1)
        quantized = self.quantizer.quantize(params.quantizer, z_e, mask)
        terms = {
            "reconstruction": self._nats(params, codes, quantized.z_q, dropout_key),
            **{name: mean_of_each(term) for name, term in quantized.losses.items()},
        }
        return quantized, terms, Carry(lax.stop_gradient(z_e), quantized.codes, mask)

    def _objective(self, terms) -> Float[Array, " B"]:
        return self._per_code(
            terms["reconstruction"] + self.quantizer.total_loss(terms)
        )

    def _metrics(self, quantized, terms, mask) -> dict:
        used = metrics.code_usage(
            quantized.codes, num_codes=self.latent_codes, mask=mask
        )
        return {
            **self._bits_per_code(terms["reconstruction"], mask),
            **{name: metrics.mean(terms[name], mask) for name in quantized.losses},
            "usage": used,
        }
