"""Image autoencoders: encoder, decoder and likelihood, whatever the latents.

The VQ-VAE, the VAE and VIMCO share them, so that their bounds compare (section 4.1).
"""

import dataclasses
import math
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Integer, Key, Shaped, UInt8

from vqvae_jax import image_quality, likelihoods, metrics, options
from vqvae_jax.models.base import (
    Shapes,
    TrainedByGradient,
    image_batch,
    require_halvable,
    require_sides,
)
from vqvae_jax.networks.autoencoder import Decoder, Encoder
from vqvae_jax.options import GIVEN
from vqvae_jax.runtime.arrays import AnyArray, require_shape
from vqvae_jax.runtime.errors import require


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageAutoencoder(TrainedByGradient):
    """An encoder, a decoder and p(x|z), which the models of section 4.1 share.

    Attributes:
      image_shape: `(H, W, C)`.
      encoder: from images to latents.
      decoder: from latents to the parameters of p(x|z).
      likelihood: p(x|z): "categorical", "gaussian", "gaussian_fixed",
        "logistic_mixture", "coupled_logistic_mixture" or "mse".
    """

    image_shape: Annotated[tuple[int, int, int], GIVEN]
    encoder: Encoder = Encoder()
    decoder: Decoder = Decoder()
    likelihood: str = "categorical"

    def __post_init__(self):
        """Check every option; UserError names the first wrong one."""
        options.check(self)
        require_sides("image_shape", self.image_shape)
        require_halvable(
            self.image_shape,
            num_downsamples=self.encoder.num_downsamples,
            key="encoder.num_downsamples",
        )
        require(
            self.decoder.num_downsamples == self.encoder.num_downsamples,
            f"decoder.num_downsamples={self.decoder.num_downsamples} must equal "
            f"encoder.num_downsamples={self.encoder.num_downsamples}",
        )
        likelihoods.by_name(self.likelihood)

    @property
    def num_dims(self) -> int:
        """Number of values of one image, the divisor of bits/dim."""
        return math.prod(self.image_shape)

    @property
    def num_latents(self) -> int:
        """Codes or numbers in z of one image; of codes, N of equation 3."""
        return math.prod(self.grid)

    @property
    def stride(self) -> int:
        """Pixels of an image for each row and column of its grid."""
        return 2**self.encoder.num_downsamples

    def init_batch(self) -> Shapes:
        """Return the shapes of a batch that `init` accepts."""
        return image_batch(self.image_shape)

    def reconstruct(
        self, params: Any, images: UInt8[AnyArray, "B H W C"]
    ) -> UInt8[Array, "B H W C"]:
        """Return `decode(encode(images))`."""
        return self.decode(params, self.encode(params, images))

    @property
    def _cells(self) -> tuple[int, int]:
        height, width, _ = self.image_shape
        halvings = self.encoder.num_downsamples
        return height >> halvings, width >> halvings

    @property
    def _likelihood(self) -> likelihoods.Likelihood:
        return likelihoods.by_name(self.likelihood)

    def _encoder_to(self, out_features: int) -> Encoder:
        return self.encoder.clone(out_features=out_features)

    @property
    def _decoder(self) -> Decoder:
        out_channels = self._likelihood.num_outputs(self.image_shape[-1])
        return self.decoder.clone(out_channels=out_channels)

    def _as_input(self, images) -> Float[Array, "B H W C"]:
        return scaled_images(images, self.image_shape)

    def _log_p(self, decoder_params, z, images) -> Float[Array, " B"]:
        """Return log p(x|z) of each example, in nats."""
        outputs = self._decoder.apply(decoder_params, z)
        return sum_of_each(self._likelihood.log_prob(outputs, images))

    def _mean_image(self, decoder_params, z) -> Float[Array, "B H W C"]:
        return self._likelihood.mean(self._decoder.apply(decoder_params, z))

    def _decode(self, decoder_params, z) -> UInt8[Array, "B H W C"]:
        return likelihoods.to_uint8(self._mean_image(decoder_params, z))

    def _bits_per_dim(self, nats_per_dim, mask) -> metrics.Metrics:
        """Return the metric; {} where p(x|z) is a density."""
        if not self._likelihood.is_discrete:
            return {}
        return {
            "bits_per_dim": metrics.mean(nats_per_dim / math.log(2), mask),
            **self._bits_of_each(mask, {"bits": nats_per_dim}),
        }

    def _bits_of_each(self, mask, nats_per_dim) -> dict[str, metrics.Each]:
        """Return the bits of each image; {} where p(x|z) is a density."""
        if not self._likelihood.is_discrete:
            return {}
        to_bits = self.num_dims / math.log(2)
        return {
            name: metrics.of_each(nats * to_bits, mask)
            for name, nats in nats_per_dim.items()
        }


def scaled_images(
    images: Shaped[AnyArray, "..."], image_shape: tuple[int, int, int]
) -> Float[Array, "B H W C"]:
    """Map images to -1 ... 1.

    Raises:
      UserError: the images are not uint8 of image_shape.
    """
    require_shape("images", images, "B", *image_shape)
    likelihoods.require_uint8(images)
    return likelihoods.scaled(jnp.asarray(images, jnp.float32))


def quality(
    images: UInt8[Array, "B H W C"], means: Float[Array, "B H W C"], mask
) -> dict[str, metrics.Mean]:
    """Return the measures of reconstructions that accept images of this size."""
    images = images.astype(jnp.float32)
    return {
        name: metrics.mean(measure.compare(images, means), mask)
        for name, measure in image_quality.MEASURES.items()
        if min(images.shape[1:3]) >= measure.smallest_side
    }


def keys_of(images: Integer[AnyArray, "B H W C"]) -> Key[Array, " B"]:
    """Return a key for each image, or grid of codes, that depends on it alone.

    A bound estimated with these keys is the same number in every evaluation, however
    the images are split into batches and over devices.
    """
    pixels = jnp.asarray(images).reshape(images.shape[0], -1).astype(jnp.uint32)
    # Random odd multipliers modulo 2^32: different images rarely collide.
    odd = np.random.default_rng(0).integers(2**31, size=pixels.shape[1]) * 2 + 1
    digests = jnp.sum(pixels * jnp.asarray(odd, jnp.uint32)[None], axis=1)
    return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(0), digests)


def over_samples(function, num_samples: int, *, at_once: int = 1) -> Any:
    """Stack `function(number)` of samples 0 ... num_samples - 1, `at_once` at a time.

    With several chunks, intermediate values are recomputed for the gradient, so that
    memory does not grow with the number of samples.
    """
    if num_samples == at_once:
        return jax.vmap(function)(jnp.arange(num_samples))
    chunks = jnp.arange(num_samples).reshape(-1, at_once)
    stacked = lax.map(jax.checkpoint(jax.vmap(function)), chunks)
    return jax.tree.map(lambda x: x.reshape(num_samples, *x.shape[2:]), stacked)


def sum_of_each(x: Float[Array, "B ..."]) -> Float[Array, " B"]:
    """Sum over all axes but the batch."""
    return x.reshape(x.shape[0], -1).sum(axis=1)


def mean_of_each(x: Float[Array, "B ..."]) -> Float[Array, " B"]:
    """Average over all axes but the batch."""
    return x.reshape(x.shape[0], -1).mean(axis=1)
