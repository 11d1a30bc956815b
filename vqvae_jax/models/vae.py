"""The continuous VAE with the VQ-VAE's architecture (section 4.1).

    -log p(x) <= E_q(z|x)[-log p(x|z)] + KL(q(z|x) || p(z))

with p(z) = N(0, I) and q(z|x) a diagonal Gaussian over a grid `[h, w, latent_dim]`
(Kingma and Welling, *Auto-Encoding Variational Bayes*, 2014; Rezende, Mohamed and
Wierstra, 2014). On CIFAR-10 the paper gives it 4.51 bits/dim.

    model = VAE(image_shape=(32, 32, 3))
    params = model.init(key, batch)
    (loss, (metrics, _)) = model.loss(params, key, batch)

A batch is a dict of `image` `[B, H, W, C]` uint8 and `mask` `[B]` bool, False at
padding examples.
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, UInt8

from vqvae_jax import metrics
from vqvae_jax.models.autoencoder import (
    ImageAutoencoder,
    keys_of,
    over_samples,
    quality,
    sum_of_each,
)
from vqvae_jax.models.base import Traits
from vqvae_jax.networks.autoencoder import Encoder
from vqvae_jax.runtime.arrays import AnyArray, require_shape
from vqvae_jax.runtime.errors import require


class Params(NamedTuple):
    """The parameters of a VAE.

    encoder: the encoder's parameters.
    decoder: the decoder's parameters.
    """

    encoder: Any
    decoder: Any


class Posterior(NamedTuple):
    """The diagonal Gaussian q(z|x).

    mean: `[B, ..., L]`.
    log_variance: `[B, ..., L]`.
    """

    mean: Float[Array, "B *grid L"]
    log_variance: Float[Array, "B *grid L"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class VAE(ImageAutoencoder):
    """A VAE over images: an autoencoder with Gaussian latents.

    Attributes:
      latent_dim: numbers in each cell of the latent grid; open in the paper.
      samples_per_image: draws of z for each image's bound in `evaluate`.
      log_variance_range: the logarithm of q's variance is clipped to it.
    """

    latent_dim: Annotated[int, ">= 1"] = 64
    samples_per_image: Annotated[int, ">= 1"] = 1
    log_variance_range: tuple[float, float] = (-12.0, 6.0)

    traits = Traits(likelihood="bound", latent="numbers", encodes=True)

    def __post_init__(self):
        """Check every option; UserError names the first wrong one."""
        super().__post_init__()
        low, high = self.log_variance_range
        require(
            low < high,
            f"log_variance_range must be (low, high), got {self.log_variance_range}",
        )

    @property
    def grid(self) -> tuple[int, int, int]:
        """The shape `(h, w, latent_dim)` of an image's latents."""
        return *self._cells, self.latent_dim

    def init(self, key: PRNGKeyArray, batch: Mapping[str, Array]) -> Params:
        """Initialise the networks at random; the batch gives the shapes."""
        encoder_key, decoder_key = jax.random.split(key)
        encoder = self._encoder.init(encoder_key, self._as_input(batch["image"][:1]))
        decoder = self._decoder.init(decoder_key, jnp.zeros((1, *self.grid)))
        return Params(encoder, decoder)

    def loss(
        self, params: Params, key: PRNGKeyArray, batch: Mapping[str, Array]
    ) -> tuple[Float[Array, ""], tuple[metrics.Metrics, None]]:
        """Return the negative bound from one draw of z, with its two terms as metrics.

        All are in nats per value of the image.

        Raises:
          UserError: the images are not uint8 of image_shape.
        """
        keys = jax.random.split(key, batch["image"].shape[0])
        reconstruction, kl, _ = self._bound(params, keys, batch["image"], draws=1)
        loss = metrics.masked_mean(
            reconstruction + kl, batch["mask"], batch.get("global_mask")
        )
        return loss, (_terms(reconstruction, kl, batch["mask"]), None)

    def evaluate(self, params: Params, batch: Mapping[str, Array]) -> metrics.Metrics:
        """Return the terms of the loss, PSNR and, if defined, bits/dim.

        The expectation over q(z|x) is a mean over `samples_per_image` draws, whose keys
        depend on each image alone, so that evaluation is deterministic. Per image there
        are the bits of distortion and of rate, and `bits`, their sum.
        """
        images, mask = batch["image"], batch["mask"]
        reconstruction, kl, posterior = self._bound(
            params, keys_of(images), images, draws=self.samples_per_image
        )
        return {
            **_terms(reconstruction, kl, mask),
            **quality(images, self._mean_image(params.decoder, posterior.mean), mask),
            **self._bits_per_dim(reconstruction + kl, mask),
            **self._bits_of_each(
                mask, {"distortion_bits": reconstruction, "rate_bits": kl}
            ),
            "loss": metrics.mean(reconstruction + kl, mask),
        }

    def encode(
        self, params: Params, images: UInt8[AnyArray, "B H W C"]
    ) -> Float[Array, "B h w L"]:
        """Return the mean of q(z|x).

        Raises:
          UserError: the images are not uint8 of image_shape.
        """
        return self._posterior(params, images).mean

    def decode(
        self, params: Params, z: Float[AnyArray, "B h w L"]
    ) -> UInt8[Array, "B H W C"]:
        """Return the mean image of p(x|z), rounded to 256 values.

        Raises:
          UserError: z is not a grid of this model.
        """
        require_shape("z", z, "B", *self.grid)
        return self._decode(params.decoder, jnp.asarray(z))

    def sample(
        self, params: Params, key: PRNGKeyArray, *, num_samples: int
    ) -> UInt8[Array, "B H W C"]:
        """Draw z from the prior, and return the mean images of p(x|z)."""
        z = jax.random.normal(key, (num_samples, *self.grid))
        return self.decode(params, z)

    @property
    def _encoder(self) -> Encoder:
        return self._encoder_to(2 * self.latent_dim)

    def _posterior(self, params, images) -> Posterior:
        heads = self._encoder.apply(params.encoder, self._as_input(images))
        mean, log_variance = jnp.split(heads, 2, axis=-1)
        return Posterior(mean, jnp.clip(log_variance, *self.log_variance_range))

    def _bound(self, params, keys, images, *, draws: int):
        """Return the bound's two terms in nats per value, `[B]`, and q(z|x)."""
        posterior = self._posterior(params, images)

        def log_p(number):
            each = jax.vmap(jax.random.fold_in, (0, None))(keys, number)
            return self._log_p(params.decoder, reparameterized(each, posterior), images)

        reconstruction = -over_samples(log_p, draws).mean(axis=0)
        kl = sum_of_each(kl_to_standard_normal(posterior))
        return reconstruction / self.num_dims, kl / self.num_dims, posterior


def reparameterized(keys: Array, posterior: Posterior) -> Float[Array, "B *grid L"]:
    """Draw z = mean + sigma * epsilon, each example with its own key `[B]`."""
    mean, log_variance = posterior
    epsilon = jax.vmap(lambda key: jax.random.normal(key, mean.shape[1:]))(keys)
    return mean + jnp.exp(0.5 * log_variance) * epsilon


def kl_to_standard_normal(posterior: Posterior) -> Float[Array, "B *grid L"]:
    """Return KL(q(z|x) || N(0, 1)) of each latent, in nats, in closed form.

    Kingma and Welling, appendix B.
    """
    mean, log_variance = posterior
    # expm1(v) - v instead of exp(v) - 1 - v, which cancels near v = 0.
    return 0.5 * (jnp.square(mean) + jnp.expm1(log_variance) - log_variance)


def _terms(reconstruction, kl, mask) -> dict[str, metrics.Mean]:
    return {
        "reconstruction": metrics.mean(reconstruction, mask),
        "kl": metrics.mean(kl, mask),
    }
