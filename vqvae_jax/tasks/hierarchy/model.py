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

`HierarchyVAE` is its continuous counterpart: Gaussian latents, the same networks.

    -log p(codes) <= E_q(z|codes)[-log p(codes | z)] + KL(q(z|codes) || N(0, I))

Each bit that z carries costs a bit of KL, and the PixelCNN learns early to ignore z.
The paper claims (sections 1 and 4.2) that such latents collapse and those of a VQ-VAE
do not.
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
from vqvae_jax.models.autoencoder import keys_of, mean_of_each, sum_of_each
from vqvae_jax.models.base import Carry, TrainedByGradient, TrainedWithQuantizer
from vqvae_jax.models.vae import Posterior, kl_to_standard_normal, reparameterized
from vqvae_jax.options import GIVEN, OneOf
from vqvae_jax.quantizers import VQ, Quantizer
from vqvae_jax.runtime.arrays import AnyArray, require_range, require_shape
from vqvae_jax.runtime.errors import require
from vqvae_jax.tasks.hierarchy.global_latents import GlobalLatents, Params

# The logarithm of q's variance is clipped to this range, as in `VAE`.
_LOG_VARIANCE_RANGE = (-12.0, 6.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hierarchy(TrainedWithQuantizer, GlobalLatents):
    """The second VQ-VAE: global latents with a quantizer.

    Attributes:
      quantizer: of the encoder's output; the paper has three codebooks. A frame uses
        one code of each, so the mean use of a code is B / K per step.
    """

    # 27 bits save at most 0.06 bits per code: a commitment loss of 0.25 would outweigh
    # that.
    quantizer: Annotated[Quantizer, OneOf(quantizers.MEMBERS)] = VQ(
        num_codebooks=3, beta=0.01
    )

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
    def continuous(self) -> "HierarchyVAE":
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
        return float(self.quantizer.bits)

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
        """Return equation 3, with its terms as metrics.

        -log p(codes | z_q) is in nats per code of the frame, as in `Prior`; the terms
        of the quantizer are averaged over the latents.
        """
        quantizer_key, dropout_key = jax.random.split(key)
        quantized, terms, carry = self._forward(
            params, batch, quantizer_key, dropout_key
        )
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

    def _forward(self, params, batch, quantizer_key=None, dropout_key=None):
        """Encode, quantize and decode; terms are per frame, unweighted."""
        codes, mask = batch["codes"], batch["mask"]
        z_e = self._encoded(params, codes, heads=1)
        quantized = self.quantizer.quantize(params.quantizer, z_e, mask, quantizer_key)
        terms = {
            "reconstruction": self._nats(params, codes, quantized.z_q, dropout_key),
            **{name: mean_of_each(term) for name, term in quantized.losses.items()},
        }
        return quantized, terms, Carry(lax.stop_gradient(z_e), quantized.codes, mask)

    def _objective(self, terms) -> Float[Array, " B"]:
        nats_per_code = self._per_code(terms["reconstruction"])
        return nats_per_code + self.quantizer.total_loss(terms)

    def _metrics(self, quantized, terms, mask) -> dict:
        used = metrics.code_usage(
            quantized.codes, num_codes=self.latent_codes, mask=mask
        )
        return {
            **self._bits_per_code(terms["reconstruction"], mask),
            **{name: metrics.mean(terms[name], mask) for name in quantized.losses},
            "usage": used,
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class HierarchyVAE(TrainedByGradient, GlobalLatents):
    """A VAE over grids of codes with a PixelCNN as its decoder.

    Attributes:
      z_features: N, the width of z.
    """

    z_features: Annotated[int, GIVEN, ">= 1"]

    @property
    def latent_features(self) -> int:
        """N, the width of z."""
        return self.z_features

    def init(self, key: PRNGKeyArray, batch: Mapping[str, Array]) -> Params:
        """Initialise the networks at random; the batch gives the shapes."""
        return self._init_networks(key, batch["codes"], heads=2)

    def loss(
        self, params: Params, key: PRNGKeyArray, batch: Mapping[str, Array]
    ) -> tuple[Float[Array, ""], tuple[metrics.Metrics, None]]:
        """Return the negative bound in nats per code, from one draw of z."""
        codes, mask = batch["codes"], batch["mask"]
        latent_key, dropout_key = jax.random.split(key)
        keys = jax.random.split(latent_key, codes.shape[0])
        nats, kl = self._bound(params, keys, codes, dropout_key)
        loss = metrics.masked_mean(
            self._per_code(nats + kl), mask, batch.get("global_mask")
        )
        return loss, (self._metrics(nats, kl, mask), None)

    def evaluate(self, params: Params, batch: Mapping[str, Array]) -> metrics.Metrics:
        """Return both terms of the bound, without dropout and for a fixed draw of z."""
        codes, mask = batch["codes"], batch["mask"]
        nats, kl = self._bound(params, keys_of(codes), codes)
        loss = metrics.mean(self._per_code(nats + kl), mask)
        return {**self._metrics(nats, kl, mask), "loss": loss}

    def encode(
        self, params: Params, codes: Int[AnyArray, "B H W C"]
    ) -> Float[Array, "B N"]:
        """Draw z from q(z|codes) with keys that depend on each frame alone.

        Raises:
          UserError: the codes do not have this model's grid.
        """
        return reparameterized(keys_of(codes), self._posterior(params, codes))

    def _check_latents(self, latents: AnyArray) -> None:
        require_shape("z", latents, "B", self.latent_features)

    def _vectors(self, params: Params, latents: AnyArray) -> Float[Array, "B N"]:
        del params
        return jnp.asarray(latents)

    def _posterior(self, params, codes) -> Posterior:
        heads = self._encoded(params, codes, heads=2)
        mean, log_variance = jnp.split(heads, 2, axis=-1)
        return Posterior(mean, jnp.clip(log_variance, *_LOG_VARIANCE_RANGE))

    def _bound(self, params, keys, codes, dropout_key=None):
        """Return -log p(codes | z) and the KL of each frame, in nats."""
        posterior = self._posterior(params, codes)
        z = reparameterized(keys, posterior)
        kl = sum_of_each(kl_to_standard_normal(posterior))
        return self._nats(params, codes, z, dropout_key), kl

    def _metrics(self, nats, kl, mask) -> dict:
        kl_bits = metrics.mean(kl / math.log(2), mask)
        return {**self._bits_per_code(nats, mask), "kl_bits_per_frame": kl_bits}
