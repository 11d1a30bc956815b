"""The GAN that the paper's VQ-VAE is compared with (Goodfellow et al., 2014).

    discriminator:  -log D(x) - log(1 - D(G(z))) + r1 / 2 |grad_x logit D(x)|^2
    generator:      -log D(G(z))                                  z ~ N(0, I)

with D a sigmoid of the discriminator's logit. The generator's loss is the
non-saturating one (section 3), the penalty R1 (Mescheder, Geiger and Nowozin, *Which
Training Methods for GANs do actually Converge?*, 2018, equation 9). The sum has each
player's gradient with respect to its own parameters, so that one optimiser moves both.

    model = GAN(image_shape=(32, 32, 3))
    params = model.init(key, batch)
    (loss, (metrics, _)) = model.loss(params, key, batch)
    images = model.sample(params, key, num_samples=64)

A batch is a dict of `image` `[B, H, W, C]` uint8 and `mask` `[B]` bool, False at
padding examples; neither these nor the images generated for them count.
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray, UInt8

from vqvae_jax import likelihoods, metrics, options
from vqvae_jax.models.autoencoder import keys_of, scaled_images, sum_of_each
from vqvae_jax.models.base import (
    Shapes,
    TrainedByGradient,
    Traits,
    image_batch,
    require_halvable,
    require_sides,
)
from vqvae_jax.networks.dcgan import Discriminator, Generator
from vqvae_jax.options import GIVEN
from vqvae_jax.runtime.errors import require


class Params(NamedTuple):
    """The parameters of a GAN.

    generator: the generator's parameters.
    discriminator: the discriminator's parameters.
    """

    generator: Any
    discriminator: Any


class Logits(NamedTuple):
    """The discriminator's logits, `[B]` each.

    real: of the batch's images.
    fake: of generated images; its gradient reaches the discriminator only.
    fooling: the same values; its gradient reaches the generator only.
    """

    real: Float[Array, " B"]
    fake: Float[Array, " B"]
    fooling: Float[Array, " B"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class GAN(TrainedByGradient):
    """A GAN over images.

    Attributes:
      image_shape: `(H, W, C)`.
      latent_dim: numbers in z.
      generator: from z to images.
      discriminator: from images to logits.
      r1: weight of the discriminator's squared gradient at real images; 0 for none. It
        depends on the scale of images, -1 ... 1 here, and grows with their size.
    """

    image_shape: Annotated[tuple[int, int, int], GIVEN]
    latent_dim: Annotated[int, ">= 1"] = 100
    generator: Generator = Generator()
    discriminator: Discriminator = Discriminator()
    r1: Annotated[float, ">= 0"] = 0.1

    traits = Traits(
        likelihood="undefined",
        latent="numbers",
        encodes=False,
        figure=("test_discriminator", "nats"),
    )

    def __post_init__(self):
        """Check every option; UserError names the first wrong one."""
        options.check(self)
        require_sides("image_shape", self.image_shape)
        for name in ("generator", "discriminator"):
            network = getattr(self, name)
            require_halvable(
                self.image_shape,
                num_downsamples=network.num_downsamples,
                key=f"{name}.num_downsamples",
            )
            halvings = network.num_downsamples - 1
            require(
                network.channels % 2**halvings == 0,
                f"{name}.channels is halved {halvings} times, so it must be a multiple "
                f"of {2**halvings}, got {network.channels}",
            )

    @property
    def num_latents(self) -> int:
        """Numbers in z."""
        return self.latent_dim

    def init_batch(self) -> Shapes:
        """Return the shapes of a batch that `init` accepts."""
        return image_batch(self.image_shape)

    def init(self, key: PRNGKeyArray, batch: Mapping[str, Array]) -> Params:
        """Initialise the networks at random; the batch gives the shapes."""
        generator_key, discriminator_key = jax.random.split(key)
        images = self._as_input(batch["image"][:1])
        z = jnp.zeros((1, self.latent_dim))
        return Params(
            generator=self._generator.init(generator_key, z),
            discriminator=self.discriminator.init(discriminator_key, images),
        )

    def loss(
        self, params: Params, key: PRNGKeyArray, batch: Mapping[str, Array]
    ) -> tuple[Float[Array, ""], tuple[metrics.Metrics, None]]:
        """Return the sum of both players' losses and R1; the first two are metrics.

        The sum does not measure the quality of the GAN: one player's gain is the
        other's loss.

        Raises:
          UserError: the images are not uint8 of image_shape.
        """
        images, mask = batch["image"], batch["mask"]
        z = jax.random.normal(key, (images.shape[0], self.latent_dim))
        logits = self._logits(params, z, images)
        losses = generator_loss(logits) + discriminator_loss(logits)
        if self.r1 > 0:
            squared = squared_slope(
                lambda x: self.discriminator.apply(params.discriminator, x),
                self._as_input(images),
            )
            losses = losses + self.r1 / 2 * squared
        loss = metrics.masked_mean(losses, mask, batch.get("global_mask"))
        return loss, (_metrics(logits, mask), None)

    def evaluate(self, params: Params, batch: Mapping[str, Array]) -> metrics.Metrics:
        """Return both players' losses, accuracies and a loss of 0.

        Each z depends on the image at its index alone, so that evaluation is
        deterministic.
        """
        images, mask = batch["image"], batch["mask"]
        draw = jax.vmap(lambda key: jax.random.normal(key, (self.latent_dim,)))
        logits = self._logits(params, draw(keys_of(images)), images)
        # A GAN has no objective that falls as it improves. Of equal losses the newest
        # checkpoint counts as the best.
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
        return self.generator.clone(image_shape=self.image_shape)

    def _as_input(self, images) -> Float[Array, "B H W C"]:
        return scaled_images(images, self.image_shape)

    def _logits(self, params, z, images) -> Logits:
        generated = self._generator.apply(params.generator, z)
        discriminate = self.discriminator.apply
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
    """Return the squared norm of each logit's gradient with respect to its image."""
    # No image changes another's logit: the gradient of the sum contains each.
    slopes = jax.grad(lambda x: discriminate(x).sum())(images)
    return sum_of_each(jnp.square(slopes))


def _metrics(logits: Logits, mask) -> dict[str, metrics.Mean]:
    return {
        "generator": metrics.mean(generator_loss(logits), mask),
        "discriminator": metrics.mean(discriminator_loss(logits), mask),
        "real_accuracy": metrics.mean(jnp.float32(logits.real > 0), mask),
        "fake_accuracy": metrics.mean(jnp.float32(logits.fake < 0), mask),
    }
