"""The GAN that the paper's VQ-VAE is compared with (Goodfellow et al., 2014).

    discriminator:  -log D(x) - log(1 - D(G(z))) + r1 / 2 |grad_x logit D(x)|^2
    generator:      -log D(G(z))                                  z ~ N(0, I)

with D a sigmoid of the discriminator's logit. The generator's loss is the
non-saturating one (section 3), the penalty R1 (Mescheder, Geiger and Nowozin, *Which
Training Methods for GANs do actually Converge?*, 2018, equation 9). Their sum has the
gradients of both players' losses, for each player its own, so that one optimiser moves
both at once.

    model = GAN(image_shape=(32, 32, 3))
    params = model.init(key, batch)
    (loss, (metrics, _)) = model.loss(params, key, batch)
    images = model.sample(params, key, num_samples=64)

A batch is a dict of `image` `[B, H, W, C]` uint8 and `mask` `[B]` bool, False at
examples that only fill up the batch; neither they nor the images generated in their
places count.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray, UInt8

from vqvae_jax import likelihoods, metrics
from vqvae_jax.models.autoencoder import keys_of, sum_of_each
from vqvae_jax.models.base import (
    TrainedByGradient,
    require_dtype,
    require_halvable,
    require_sides,
)
from vqvae_jax.networks.dcgan import Discriminator, Generator
from vqvae_jax.runtime.arrays import require_shape
from vqvae_jax.runtime.errors import require


class Params(NamedTuple):
    """Everything that a trained GAN is.

    generator: the generator's parameters.
    discriminator: the discriminator's parameters.
    """

    generator: Any
    discriminator: Any


class Logits(NamedTuple):
    """What the discriminator says, `[B]` each.

    real: of the batch's images.
    fake: of generated images; its gradient reaches the discriminator only.
    fooling: the same numbers; its gradient reaches the generator only.
    """

    real: Float[Array, " B"]
    fake: Float[Array, " B"]
    fooling: Float[Array, " B"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class GAN(TrainedByGradient):
    """Sizes and options of a GAN over images.

    Attributes:
      image_shape: `(H, W, C)`.
      latent_dim: numbers in z.
      units: channels of the smallest grid; each stage halves them.
      stages: convolutions of stride 2 in each of generator and discriminator.
      r1: weight of the discriminator's squared slope at real images; 0 for none. It
        depends on the scale of images, -1 ... 1 here, and grows with their size.
      dtype: compute dtype, "float32" or "bfloat16"; losses and parameters are float32
        all the same.
    """

    image_shape: tuple[int, int, int]
    latent_dim: int = 100
    units: int = 512
    stages: int = 3
    r1: float = 0.1
    dtype: str = "float32"

    def __post_init__(self):
        """Check every option, so that a mistake is told before anything is built."""
        for name in ("latent_dim", "units", "stages"):
            value = getattr(self, name)
            require(value >= 1, f"{name} must be at least 1, got {value}")
        require(self.r1 >= 0, f"r1 must not be negative, got {self.r1}")
        require_sides("image_shape", self.image_shape)
        require_halvable(self.image_shape, stages=self.stages)
        factor = 2**self.stages
        require(
            self.units % (factor // 2) == 0,
            f"units is halved {self.stages - 1} times, so it must be a multiple of "
            f"{factor // 2}, got {self.units}",
        )
        require_dtype(self.dtype)

    def init(self, key: PRNGKeyArray, batch: Mapping[str, Array]) -> Params:
        """Initialise the networks at random; of the batch only shapes matter."""
        generator_key, discriminator_key = jax.random.split(key)
        images = self._as_input(batch["image"][:1])
        z = jnp.zeros((1, self.latent_dim))
        return Params(
            generator=self._generator.init(generator_key, z),
            discriminator=self._discriminator.init(discriminator_key, images),
        )

    def loss(
        self, params: Params, key: PRNGKeyArray, batch: Mapping[str, Array]
    ) -> tuple[Float[Array, ""], tuple[metrics.Metrics, None]]:
        """Return the sum of both players' losses and R1; the first two are metrics.

        The sum says nothing of how well the GAN does: what one player gains the other
        loses.

        Raises:
          UserError: the images are not uint8 of image_shape.
        """
        images, mask = batch["image"], batch["mask"]
        z = jax.random.normal(key, (images.shape[0], self.latent_dim))
        logits = self._logits(params, z, images)
        losses = generator_loss(logits) + discriminator_loss(logits)
        if self.r1 > 0:
            squared = squared_slope(
                lambda x: self._discriminator.apply(params.discriminator, x),
                self._as_input(images),
            )
            losses = losses + self.r1 / 2 * squared
        loss = metrics.masked_mean(losses, mask, batch.get("global_mask"))
        return loss, (_metrics(logits, mask), None)

    def evaluate(self, params: Params, batch: Mapping[str, Array]) -> metrics.Metrics:
        """Return both players' losses, accuracies and a loss that is 0.

        Each z depends on the image in its place alone: to evaluate again gives the
        same numbers.
        """
        images, mask = batch["image"], batch["mask"]
        draw = jax.vmap(lambda key: jax.random.normal(key, (self.latent_dim,)))
        logits = self._logits(params, draw(keys_of(images)), images)
        # A GAN has no likelihood and no objective that falls as it gets better. Of
        # equal losses the newest checkpoint is taken for the best.
        nothing = jnp.zeros(images.shape[0])
        return {**_metrics(logits, mask), "loss": metrics.mean(nothing, mask)}

    def sample(
        self, params: Params, key: PRNGKeyArray, *, num_samples: int
    ) -> UInt8[Array, "B H W C"]:
        """Draw z from N(0, I) and return the images that it generates."""
        z = jax.random.normal(key, (num_samples, self.latent_dim))
        images = self._generator.apply(params.generator, z)
        return likelihoods.to_uint8(likelihoods.unscaled(images))

    @property
    def _generator(self) -> Generator:
        return Generator(self.image_shape, **self._sizes)

    @property
    def _discriminator(self) -> Discriminator:
        return Discriminator(**self._sizes)

    @property
    def _sizes(self) -> dict[str, Any]:
        return {
            "units": self.units,
            "stages": self.stages,
            "dtype": jnp.dtype(self.dtype),
        }

    def _as_input(self, images) -> Float[Array, "B H W C"]:
        require_shape("images", images, "B", *self.image_shape)
        likelihoods.require_uint8(images)
        return likelihoods.scaled(jnp.asarray(images, jnp.float32))

    def _logits(self, params, z, images) -> Logits:
        generated = self._generator.apply(params.generator, z)
        discriminate = self._discriminator.apply
        return Logits(
            real=discriminate(params.discriminator, self._as_input(images)),
            fake=discriminate(params.discriminator, lax.stop_gradient(generated)),
            fooling=discriminate(lax.stop_gradient(params.discriminator), generated),
        )


def generator_loss(logits: Logits) -> Float[Array, " B"]:
    """Return -log D(G(z)), in nats."""
    return jax.nn.softplus(-logits.fooling)


def discriminator_loss(logits: Logits) -> Float[Array, " B"]:
    """Return -log D(x) - log(1 - D(G(z))), in nats; 2 ln 2 where D is 1/2."""
    return jax.nn.softplus(-logits.real) + jax.nn.softplus(logits.fake)


def squared_slope(discriminate, images: Float[Array, "B H W C"]) -> Float[Array, " B"]:
    """Return the squared norm of each logit's gradient by its own image."""
    # No image changes another's logit, so the gradient of their sum holds them all.
    slopes = jax.grad(lambda x: discriminate(x).sum())(images)
    return sum_of_each(jnp.square(slopes))


def _metrics(logits: Logits, mask) -> dict[str, metrics.Mean]:
    return {
        "generator": metrics.mean(generator_loss(logits), mask),
        "discriminator": metrics.mean(discriminator_loss(logits), mask),
        "real_accuracy": metrics.mean(jnp.float32(logits.real > 0), mask),
        "fake_accuracy": metrics.mean(jnp.float32(logits.fake < 0), mask),
    }
