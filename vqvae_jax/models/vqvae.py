"""The VQ-VAE of section 3: encoder, quantizer, decoder and likelihood as one model.

`VQVAE` holds sizes and options, no arrays; its methods are pure functions of a pytree.

    model = VQVAE(image_shape=(32, 32, 3), num_codes=512)
    params = model.init(key, batch)
    (loss, (metrics, carry)) = model.loss(params, key, batch)
    params = model.update(params, key, carry)     # after the gradient step

A batch is a dict of `image` `[B, H, W, C]` uint8 and `mask` `[B]` bool, False at
examples that only fill up the batch.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt8

from vqvae_jax import metrics, quantizers
from vqvae_jax.models.autoencoder import ImageAutoencoder, mean_of_each, quality
from vqvae_jax.models.bottleneck import (
    Bottleneck,
    Carry,
    TrainedWithCodebook,
    shared_options,
)
from vqvae_jax.networks.autoencoder import Encoder
from vqvae_jax.runtime.arrays import AnyArray, require_range, require_shape


class Params(NamedTuple):
    """Everything that a trained VQ-VAE is.

    Attributes:
      encoder: the encoder's parameters.
      decoder: the decoder's parameters.
      codebook: `quantizer.Codebook`.
    """

    encoder: Any
    decoder: Any
    codebook: quantizers.Codebook


@dataclasses.dataclass(frozen=True, kw_only=True)
class VQVAE(TrainedWithCodebook, ImageAutoencoder):
    """Sizes and options of a VQ-VAE over images, beside those of any autoencoder.

    Attributes:
      num_codes: K, rows of each codebook.
      num_codebooks: G, codes of each cell of the latent grid.
      dim: D, numbers in a row.
      likelihood: p(x|z), a name that `likelihoods.by_name` knows.
      beta: weight of the commitment loss (equation 3).
      codebook_update: "loss" for the second term of equation 3, "ema" for appendix A.1.
      ema_decay: gamma of the EMA, and of the running counts in either case.
      codebook_init: "kmeans" on the first batch's z_e, or "uniform".
      restart_below: restart codes used less often than this a step; 0 for never.
    """

    num_codes: int = 512
    num_codebooks: int = 1
    dim: int = 64
    likelihood: str = "mse"
    beta: float = 0.25
    codebook_update: str = "loss"
    ema_decay: float = 0.99
    codebook_init: str = "kmeans"
    restart_below: float = 0.0

    def __post_init__(self):
        """Check every option, so that a mistake is told before anything is built."""
        super().__post_init__()
        # It checks its options as it is made.
        _ = self._bottleneck

    @property
    def grid(self) -> tuple[int, int, int]:
        """The shape `(h, w, G)` of an image's codes."""
        return *self._cells, self.num_codebooks

    @property
    def num_latents(self) -> int:
        """N of equation 3: codes of one image."""
        return math.prod(self.grid)

    def init(self, key: PRNGKeyArray, batch: Mapping[str, Array]) -> Params:
        """Initialise networks at random, and the codebook from the batch's z_e."""
        encoder_key, decoder_key, codebook_key, kmeans_key = jax.random.split(key, 4)
        images = batch["image"]
        encoder = self._encoder.init(encoder_key, self._as_input(images))
        grid = (1, *self.grid[:2], self.num_codebooks * self.dim)
        decoder = self._decoder.init(decoder_key, jnp.zeros(grid))
        params = Params(encoder, decoder, codebook=None)
        codebook = self._bottleneck.init(
            codebook_key,
            kmeans_key,
            lambda: self.z_e(params, images),
            self._cell_mask(batch["mask"]),
        )
        return params._replace(codebook=codebook)

    def loss(
        self, params: Params, key: PRNGKeyArray, batch: Mapping[str, Array]
    ) -> tuple[Float[Array, ""], tuple[metrics.Metrics, Carry]]:
        """Return equation 3, and its terms as metrics.

        The reconstruction term is in nats for each value of the image, the other two
        are averaged over the N latents.
        """
        del key  # Nothing is drawn: the encoder is deterministic.
        quantized, terms, carry = self._forward(params, batch)
        loss = metrics.masked_mean(
            self._objective(terms), batch["mask"], batch.get("global_mask")
        )
        return loss, (self._metrics(quantized, terms, batch["mask"]), carry)

    def evaluate(self, params: Params, batch: Mapping[str, Array]) -> metrics.Metrics:
        """Return the terms of the loss, image quality, code usage and bits/dim.

        SSIM, of the image as `decode` rounds it, is left out for images smaller than
        its window, and bits/dim where p(x|z) is a density. `distortion_bits`, of each
        image, is -log2 p(x|z_q).
        """
        quantized, terms, _ = self._forward(params, batch)
        mask = batch["mask"]
        results = self._metrics(quantized, terms, mask)
        results["loss"] = metrics.mean(self._objective(terms), mask)
        results |= quality(batch["image"], terms["mean"], mask)
        if self._likelihood.is_discrete:
            uniform = self.num_latents * math.log2(self.num_codes)
            bits = terms["reconstruction"] / math.log(2) + uniform / self.num_dims
            results["bits_per_dim_uniform_prior"] = metrics.mean(bits, mask)
            results |= self._bits_of_each(
                mask, {"distortion_bits": terms["reconstruction"]}
            )
        return results

    def z_e(
        self, params: Params, images: UInt8[AnyArray, "B H W C"]
    ) -> Float[Array, "B h w GD"]:
        """Return the encoder's output for images, before it is quantized.

        Raises:
          UserError: the images are not uint8 of image_shape.
        """
        return self._encoder.apply(params.encoder, self._as_input(images))

    def encode(
        self, params: Params, images: UInt8[AnyArray, "B H W C"]
    ) -> Int[Array, "B h w G"]:
        """Return the codes of images.

        Raises:
          UserError: the images are not uint8 of image_shape.
        """
        return quantizers.quantize(params.codebook, self.z_e(params, images)).codes

    def decode(
        self, params: Params, codes: Int[AnyArray, "B h w G"]
    ) -> UInt8[Array, "B H W C"]:
        """Return the mean image of p(x|z) for codes, rounded to 256 values.

        Raises:
          UserError: the codes are not a grid of this model, or not in 0 ... K - 1.
        """
        require_shape("codes", codes, "B", *self.grid)
        require_range("codes", codes, 0, self.num_codes)
        z_q = quantizers.lookup(params.codebook, jnp.asarray(codes))
        return self._decode(params.decoder, z_q)

    def reconstruct(
        self, params: Params, images: UInt8[AnyArray, "B H W C"]
    ) -> UInt8[Array, "B H W C"]:
        """Return `decode(encode(images))`."""
        return self.decode(params, self.encode(params, images))

    @property
    def _bottleneck(self) -> Bottleneck:
        return Bottleneck(**shared_options(self))

    @property
    def _encoder(self) -> Encoder:
        return self._encoder_to(self.num_codebooks * self.dim)

    def _forward(self, params, batch):
        """Encode, quantize and decode; terms are for each example, unweighted."""
        images = batch["image"]
        z_e = self.z_e(params, images)
        cell_mask = self._cell_mask(batch["mask"])
        quantized = quantizers.quantize(params.codebook, z_e, cell_mask)
        outputs = self._decoder.apply(params.decoder, quantized.z_q)
        terms = {
            "reconstruction": -mean_of_each(self._likelihood.log_prob(outputs, images)),
            "codebook": mean_of_each(quantized.codebook_loss),
            "commitment": mean_of_each(quantized.commitment_loss),
            "mean": self._likelihood.mean(outputs),
        }
        return (
            quantized,
            terms,
            Carry(lax.stop_gradient(z_e), quantized.codes, cell_mask),
        )

    def _objective(self, terms) -> Float[Array, " B"]:
        return terms["reconstruction"] + self._bottleneck.objective(terms)

    def _metrics(self, quantized, terms, mask) -> dict:
        means = {
            name: metrics.mean(terms[name], mask)
            for name in ("reconstruction", "codebook", "commitment")
        }
        used = metrics.code_usage(quantized.codes, num_codes=self.num_codes, mask=mask)
        return {**means, "usage": used}

    def _cell_mask(self, mask: Bool[Array, " B"]) -> Bool[Array, "B h w"]:
        return jnp.broadcast_to(mask[:, None, None], (mask.shape[0], *self.grid[:2]))
