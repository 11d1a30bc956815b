"""A PixelCNN on pixels, without latents: log p(x) is exact.

    p(x) = prod_i p(x_i | x_1, ..., x_{i-1})

in raster order, the channels of a pixel one after the other (van den Oord,
Kalchbrenner and Kavukcuoglu, *Pixel Recurrent Neural Networks*, 2016). It is `Prior`
with the image as codes: C codes per cell, of 256 categories.

A batch is a dict of `image` `[B, H, W, C]` uint8, `label` `[B]` where there are
classes, and `mask` `[B]` bool, False at padding examples.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt8

from vqvae_jax import likelihoods, metrics, options
from vqvae_jax.models.base import (
    Shapes,
    TrainedByGradient,
    Traits,
    image_batch,
    require_sides,
)
from vqvae_jax.models.prior import Prior
from vqvae_jax.networks.pixelcnn import PixelCNN
from vqvae_jax.options import GIVEN
from vqvae_jax.runtime.arrays import AnyArray, require_range, require_shape
from vqvae_jax.runtime.errors import require


@dataclasses.dataclass(frozen=True, kw_only=True)
class PixelModel(TrainedByGradient):
    """A PixelCNN over images.

    Attributes:
      image_shape: `(H, W, C)`.
      num_values: values of each channel, 0 ... num_values - 1.
      class_names: of labels 0, 1, ...; empty for a model without labels.
      network: the PixelCNN's sizes.
      label_dropout: fraction of labels withheld in training.
    """

    image_shape: Annotated[tuple[int, int, int], GIVEN]
    num_values: Annotated[int, GIVEN, ">= 1", "<= 256"] = likelihoods.NUM_VALUES
    class_names: Annotated[tuple[str, ...], GIVEN] = ()
    network: PixelCNN = PixelCNN()
    label_dropout: Annotated[float, ">= 0", "< 1"] = 0.0

    traits = Traits(likelihood="exact", latent=None, encodes=False, draws_logits=True)

    def __post_init__(self):
        """Check every option; UserError names the first wrong one."""
        options.check(self)
        require_sides("image_shape", self.image_shape)
        require(
            self.label_dropout == 0 or len(self.class_names) > 0,
            f"label_dropout={self.label_dropout} does nothing: this PixelCNN is "
            "trained without labels. Set it to 0.0",
        )

    def init_batch(self) -> Shapes:
        """Return the shapes of a batch that `init` accepts."""
        return image_batch(self.image_shape)

    def init(self, key: PRNGKeyArray, batch: Mapping[str, Array]) -> Any:
        """Initialise the PixelCNN at random; the batch gives the shapes."""
        return self._prior.init(key, self._as_codes(batch))

    def loss(
        self, params: Any, key: PRNGKeyArray, batch: Mapping[str, Array]
    ) -> tuple[Float[Array, ""], tuple[metrics.Metrics, None]]:
        """Return -log p(x) in nats per value of the image, with dropout.

        Raises:
          UserError: the images are not of image_shape.
        """
        loss, (means, carry) = self._prior.loss(params, key, self._as_codes(batch))
        return loss, (_of_dims(means), carry)

    def evaluate(self, params: Any, batch: Mapping[str, Array]) -> metrics.Metrics:
        """Return bits/dim, exactly and without dropout."""
        return _of_dims(self._prior.evaluate(params, self._as_codes(batch)))

    def log_prob(
        self,
        params: Any,
        images: UInt8[AnyArray, "B H W C"],
        *,
        labels: Int[AnyArray, " B"] | None = None,
    ) -> Float[Array, " B"]:
        """Return log p(x) in nats, exactly, for each image.

        Raises:
          UserError: the images or the labels do not fit this model.
        """
        return self._prior.log_prob(params, self._codes(images), labels=labels)

    def sample(
        self,
        params: Any,
        key: PRNGKeyArray,
        *,
        num_samples: int | None = None,
        labels: Int[AnyArray, " B"] | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> UInt8[Array, "B H W C"]:
        """Draw images, value by value, in time linear in the number of pixels.

        Args:
          params: the model's parameters.
          key: decides the draw.
          num_samples: B, where labels do not determine it.
          labels: a class for each sample, if the model is class-conditional.
          temperature: below 1 for likelier, above 1 for more varied samples.
          top_k: draw each value from the k most likely.
          top_p: draw each value from the most likely with this total probability.
          progress: called with the number of finished rows, after each row. It is
            compiled into the program: pass the same function each time.

        Raises:
          UserError: labels are missing, unexpected or not classes.
        """
        codes = self._prior.sample(
            params,
            key,
            num_samples=num_samples,
            labels=labels,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            progress=progress,
        )
        return codes.astype(jnp.uint8)

    @property
    def _prior(self) -> Prior:
        return Prior(
            grid=self.image_shape,
            num_codes=self.num_values,
            class_names=self.class_names,
            network=self.network,
            label_dropout=self.label_dropout,
        )

    def _codes(self, images) -> Int[Array, "B H W C"]:
        require_shape("images", images, "B", *self.image_shape)
        likelihoods.require_uint8(images)
        require_range("images", images, 0, self.num_values)
        return jnp.asarray(images).astype(jnp.int32)

    def _as_codes(self, batch: Mapping[str, Array]) -> Mapping[str, Array]:
        rest = {name: array for name, array in batch.items() if name != "image"}
        return rest | {"codes": self._codes(batch["image"])}


def _of_dims(of_codes: metrics.Metrics) -> metrics.Metrics:
    """Rename the prior's metrics: its codes are the image's values."""
    return {
        "bits_per_dim" if name == "bits_per_code" else name: metric
        for name, metric in of_codes.items()
    }
