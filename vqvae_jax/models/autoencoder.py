"""What image autoencoders with other latents than the VQ-VAE's share with each other.

The same encoder, decoder and likelihoods as the VQ-VAE's, so that their bounds can be
compared (section 4.1).
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Integer, Key, UInt8

from vqvae_jax import image_quality, likelihoods, metrics
from vqvae_jax.models.base import (
    TrainedByGradient,
    require_dtype,
    require_halvable,
    require_sides,
)
from vqvae_jax.networks.autoencoder import Decoder, Encoder
from vqvae_jax.runtime.arrays import AnyArray, require_shape
from vqvae_jax.runtime.errors import require


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageAutoencoder(TrainedByGradient):
    """Sizes and options of an encoder, a decoder and p(x|z).

    Attributes:
      image_shape: `(H, W, C)`.
      stages: stride-2 convolutions; the grid is the image halved so many times.
      units: channels of encoder and decoder.
      residual_blocks: in each of encoder and decoder.
      residual_units: channels inside a residual block.
      likelihood: p(x|z), a name that `likelihoods.by_name` knows.
      dtype: compute dtype, "float32" or "bfloat16"; likelihoods, bounds and parameters
        are float32 all the same.
      remat: compute what lies inside residual blocks and stages again for the gradient
        instead of keeping it: less memory, more time, the same results.
    """

    image_shape: tuple[int, int, int]
    stages: int = 2
    units: int = 256
    residual_blocks: int = 2
    residual_units: int = 256
    likelihood: str = "categorical"
    dtype: str = "float32"
    remat: bool = False

    def __post_init__(self):
        """Check every option, so that a mistake is told before anything is built."""
        self._require_at_least(1, "units", "residual_units")
        self._require_at_least(0, "stages", "residual_blocks")
        require_sides("image_shape", self.image_shape)
        require_halvable(self.image_shape, stages=self.stages)
        require_dtype(self.dtype)
        likelihoods.by_name(self.likelihood)

    @property
    def num_dims(self) -> int:
        """Values of one image: what bits/dim divides by."""
        return math.prod(self.image_shape)

    def _require_at_least(self, low: int, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            require(value >= low, f"{name} must be at least {low}, got {value}")

    @property
    def _cells(self) -> tuple[int, int]:
        height, width, _ = self.image_shape
        return height >> self.stages, width >> self.stages

    @property
    def _likelihood(self) -> likelihoods.Likelihood:
        return likelihoods.by_name(self.likelihood)

    def _encoder_to(self, out_features: int) -> Encoder:
        return Encoder(out_features=out_features, **self._sizes)

    @property
    def _decoder(self) -> Decoder:
        channels = self.image_shape[-1] * self._likelihood.num_outputs
        return Decoder(out_channels=channels, **self._sizes)

    @property
    def _sizes(self) -> dict[str, Any]:
        return {
            "units": self.units,
            "stages": self.stages,
            "residual_blocks": self.residual_blocks,
            "residual_units": self.residual_units,
            "dtype": jnp.dtype(self.dtype),
            "remat": self.remat,
        }

    def _as_input(self, images) -> Float[Array, "B H W C"]:
        require_shape("images", images, "B", *self.image_shape)
        likelihoods.require_uint8(images)
        return likelihoods.scaled(jnp.asarray(images, jnp.float32))

    def _log_p(self, decoder_params, z, images) -> Float[Array, " B"]:
        """Return log p(x|z) of each example, in nats."""
        outputs = self._decoder.apply(decoder_params, z)
        return sum_of_each(self._likelihood.log_prob(outputs, images))

    def _mean_image(self, decoder_params, z) -> Float[Array, "B H W C"]:
        return self._likelihood.mean(self._decoder.apply(decoder_params, z))

    def _decode(self, decoder_params, z) -> UInt8[Array, "B H W C"]:
        return likelihoods.to_uint8(self._mean_image(decoder_params, z))

    def _bits_per_dim(self, nats_per_dim, mask) -> metrics.Metrics:
        """Return the metric, or nothing where p(x|z) is a density."""
        if not self._likelihood.is_discrete:
            return {}
        return {
            "bits_per_dim": metrics.mean(nats_per_dim / math.log(2), mask),
            **self._bits_of_each(mask, {"bits": nats_per_dim}),
        }

    def _bits_of_each(self, mask, nats_per_dim) -> dict[str, metrics.Each]:
        """Return the bits of each image; nothing where p(x|z) is a density."""
        if not self._likelihood.is_discrete:
            return {}
        to_bits = self.num_dims / math.log(2)
        return {
            name: metrics.of_each(nats * to_bits, mask)
            for name, nats in nats_per_dim.items()
        }


def quality(
    images: UInt8[Array, "B H W C"], means: Float[Array, "B H W C"], mask
) -> dict[str, metrics.Mean]:
    """Return the metrics of reconstructions: PSNR in dB, and SSIM of large images.

    SSIM, of the image as it is rounded to 256 values, is left out for images smaller
    than its window.
    """
    images = images.astype(jnp.float32)
    results = {"psnr_db": metrics.mean(image_quality.psnr_db(images, means), mask)}
    if min(images.shape[1:3]) >= image_quality.SSIM_WINDOW:
        ssim = image_quality.ssim(images, jnp.round(means))
        results["ssim"] = metrics.mean(ssim, mask)
    return results


def keys_of(images: Integer[AnyArray, "B H W C"]) -> Key[Array, " B"]:
    """Return a key for each image, or grid of codes, that depends on it alone.

    With them a bound that is estimated from random draws is the same number each time,
    and whatever batches and devices the images are spread over.
    """
    pixels = jnp.asarray(images).reshape(images.shape[0], -1).astype(jnp.uint32)
    # Random odd multipliers, modulo 2^32: two images that differ rarely agree.
    odd = np.random.default_rng(0).integers(2**31, size=pixels.shape[1]) * 2 + 1
    digests = jnp.sum(pixels * jnp.asarray(odd, jnp.uint32)[None], axis=1)
    return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(0), digests)


def over_samples(function, num_samples: int, *, at_once: int = 1) -> Any:
    """Stack `function(number)` of samples 0 ... num_samples - 1, some at once.

    Where there are more, only the results are kept for the gradient and the rest is
    computed again, so that memory does not grow with the samples.
    """
    if num_samples == at_once:
        return jax.vmap(function)(jnp.arange(num_samples))
    chunks = jnp.arange(num_samples).reshape(-1, at_once)
    stacked = lax.map(jax.checkpoint(jax.vmap(function)), chunks)
    return jax.tree.map(lambda x: x.reshape(num_samples, *x.shape[2:]), stacked)


def sum_of_each(x: Float[Array, "B ..."]) -> Float[Array, " B"]:
    """Sum what belongs to one example."""
    return x.reshape(x.shape[0], -1).sum(axis=1)


def mean_of_each(x: Float[Array, "B ..."]) -> Float[Array, " B"]:
    """Average what belongs to one example."""
    return x.reshape(x.shape[0], -1).mean(axis=1)
