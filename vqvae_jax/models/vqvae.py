"""The VQ-VAE (section 3): encoder, quantizer, decoder and likelihood.

`VQVAE` holds sizes and options, no arrays; its methods are pure functions of a pytree.

    model = VQVAE(image_shape=(32, 32, 3), quantizer=VQ(num_codes=512))
    params = model.init(key, batch)
    (loss, (metrics, carry)) = model.loss(params, key, batch)
    params = model.update(params, key, carry)     # after the gradient step

A batch is a dict of `image` `[B, H, W, C]` uint8 and `mask` `[B]` bool, False at
padding examples.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt8

from vqvae_jax import metrics, quantizers
from vqvae_jax.models.autoencoder import ImageAutoencoder, mean_of_each, quality
from vqvae_jax.models.base import Carry, TrainedWithQuantizer, Traits
from vqvae_jax.networks.autoencoder import Encoder
from vqvae_jax.options import OneOf
from vqvae_jax.quantizers import VQ, Quantizer
from vqvae_jax.runtime.arrays import AnyArray, require_range, require_shape


class Params(NamedTuple):
    """The parameters of a VQ-VAE.

    Attributes:
      encoder: the encoder's parameters.
      decoder: the decoder's parameters.
      quantizer: the quantizer's state.
    """

    encoder: Any
    decoder: Any
    quantizer: Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class VQVAE(TrainedWithQuantizer, ImageAutoencoder):
    """A VQ-VAE over images: an autoencoder with a quantizer.

    Attributes:
      quantizer: of the encoder's output, whose width it determines.
      likelihood: p(x|z): "categorical", "gaussian", "gaussian_fixed",
        "logistic_mixture", "coupled_logistic_mixture" or "mse".
    """

    quantizer: Annotated[Quantizer, OneOf(quantizers.MEMBERS)] = VQ()
    likelihood: str = "mse"

    traits = Traits(
        likelihood="bound",
        latent="codes",
        encodes=True,
        figure=("test_bits_per_dim_learned_prior", "bits/dim"),
        draws_logits=True,
        can_collapse=True,
    )

    @property
    def num_codes(self) -> int:
        """K, the values that a code can take."""
        return self.quantizer.num_codes

    @property
    def grid(self) -> tuple[int, int, int]:
        """The shape `(h, w, C)` of an image's codes."""
        return *self._cells, self.quantizer.codes_per_vector

    @property
    def code_bits(self) -> float:
        """Bits of an image's codes under the uniform prior."""
        return float(math.prod(self._cells) * self.quantizer.bits)

    def init(self, key: PRNGKeyArray, batch: Mapping[str, Array]) -> Params:
        """Initialise the networks at random, and the quantizer from the batch's z_e."""
        encoder_key, decoder_key, codebook_key, kmeans_key = jax.random.split(key, 4)
        images = batch["image"]
        encoder = self._encoder.init(encoder_key, self._as_input(images))
        grid = (1, *self._cells, self.quantizer.features)
        decoder = self._decoder.init(decoder_key, jnp.zeros(grid))
        params = Params(encoder, decoder, quantizer=None)
        state = self._init_quantizer(
            codebook_key,
            kmeans_key,
            lambda: self.z_e(params, images),
            self._cell_mask(batch["mask"]),
        )
        return params._replace(quantizer=state)

    def loss(
        self, params: Params, key: PRNGKeyArray, batch: Mapping[str, Array]
    ) -> tuple[Float[Array, ""], tuple[metrics.Metrics, Carry]]:
        """Return equation 3, with its terms as metrics.

        The reconstruction term is in nats per value of the image; the terms of the
        quantizer are averaged over the N latents.
        """
        quantized, terms, carry = self._forward(params, batch, key)
        loss = metrics.masked_mean(
            self._objective(terms), batch["mask"], batch.get("global_mask")
        )
        return loss, (self._metrics(quantized, terms, batch["mask"]), carry)

    def evaluate(self, params: Params, batch: Mapping[str, Array]) -> metrics.Metrics:
        """Return the terms of the loss, image quality, code usage and bits/dim.

        The effective rank of z_e shows what usage hides: codebooks that are all in use
        can hold the same information.

        SSIM is omitted for images smaller than its window, and bits/dim where p(x|z) is
        a density. `distortion_bits` is -log2 p(x|z_q) of each image.
        """
        quantized, terms, carry = self._forward(params, batch)
        mask = batch["mask"]
        results = self._metrics(quantized, terms, mask)
        results["z_e"] = metrics.moments(carry.z_e, mask)
        results["loss"] = metrics.mean(self._objective(terms), mask)
        results |= quality(batch["image"], terms["mean"], mask)
        if self._likelihood.is_discrete:
            bits = (
                terms["reconstruction"] / math.log(2) + self.code_bits / self.num_dims
            )
            results["bits_per_dim_uniform_prior"] = metrics.mean(bits, mask)
            results |= self._bits_of_each(
                mask, {"distortion_bits": terms["reconstruction"]}
            )
        return results

    def z_e(
        self, params: Params, images: UInt8[AnyArray, "B H W C"]
    ) -> Float[Array, "B h w F"]:
        """Return the encoder's output for images, before quantization.

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
        z_e = self.z_e(params, images)
        return self.quantizer.quantize(params.quantizer, z_e).codes

    def decode(
        self, params: Params, codes: Int[AnyArray, "B h w G"]
    ) -> UInt8[Array, "B H W C"]:
        """Return the mean image of p(x|z) for codes, rounded to 256 values.

        Raises:
          UserError: the codes do not have this model's grid, or are not in 0 ... K - 1.
        """
        require_shape("codes", codes, "B", *self.grid)
        require_range("codes", codes, 0, self.num_codes)
        z_q = self.quantizer.lookup(params.quantizer, jnp.asarray(codes))
        return self._decode(params.decoder, z_q)

    def codebooks(self, params: Params) -> Float[Array, "C K D"] | None:
        """Return the vector of each code; None where the quantizer has no table."""
        return self.quantizer.codebooks(params.quantizer)

    @property
    def _encoder(self) -> Encoder:
        return self._encoder_to(self.quantizer.features)

    def _forward(self, params, batch, key=None):
        """Encode, quantize and decode; terms are per example, unweighted."""
        images = batch["image"]
        z_e = self.z_e(params, images)
        cell_mask = self._cell_mask(batch["mask"])
        quantized = self.quantizer.quantize(params.quantizer, z_e, cell_mask, key)
        outputs = self._decoder.apply(params.decoder, quantized.z_q)
        terms = {
            "reconstruction": -mean_of_each(self._likelihood.log_prob(outputs, images)),
            **{name: mean_of_each(term) for name, term in quantized.losses.items()},
            "mean": self._likelihood.mean(outputs),
        }
        return (
            quantized,
            terms,
            Carry(lax.stop_gradient(z_e), quantized.codes, cell_mask),
        )

    def _objective(self, terms) -> Float[Array, " B"]:
        return terms["reconstruction"] + self.quantizer.total_loss(terms)

    def _metrics(self, quantized, terms, mask) -> dict:
        means = {
            name: metrics.mean(terms[name], mask)
            for name in ("reconstruction", *quantized.losses)
        }
        used = metrics.code_usage(quantized.codes, num_codes=self.num_codes, mask=mask)
        return {**means, "usage": used}

    def _cell_mask(self, mask: Bool[Array, " B"]) -> Bool[Array, "B h w"]:
        return jnp.broadcast_to(mask[:, None, None], (mask.shape[0], *self._cells))
