"""The PixelCNN on pixels, without a latent: log p(x) is exact.

    p(x) = prod_i p(x_i | x_1, ..., x_{i-1})

in raster order, the channels of a pixel one after the other (van den Oord,
Kalchbrenner and Kavukcuoglu, *Pixel Recurrent Neural Networks*, 2016). It is the
prior's distribution with the image for its codes: C codes a cell, of 256 categories.

A batch is a dict of `image` `[B, H, W, C]` uint8, `label` `[B]` where there are
classes, and `mask` `[B]` bool, False at examples that only fill up the batch.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt8

from vqvae_jax import likelihoods, metrics
from vqvae_jax.models.base import TrainedByGradient, require_sides
from vqvae_jax.models.prior import Prior
from vqvae_jax.runtime.arrays import AnyArray, require_range, require_shape
from vqvae_jax.runtime.errors import require


@dataclasses.dataclass(frozen=True, kw_only=True)
class PixelModel(TrainedByGradient):
    """Sizes and options of a PixelCNN over images.

    Attributes:
      image_shape: `(H, W, C)`.
      num_values: values of each channel, 0 ... num_values - 1, at most 256.
      class_names: what labels 0, 1, ... mean; empty for a model without labels.
      layers: gated layers of the PixelCNN.
      units: their channels.
      kernel_size: odd.
      cell_layers: residual layers between a pixel's context and its logits.
      dropout: rate while training.
      label_dropout: part of the labels that are withheld while training.
      dtype: compute dtype, "float32" or "bfloat16".
      remat: compute what lies inside layers again for the gradient instead of keeping
        it: less memory, more time, the same results.
    """

    image_shape: tuple[int, int, int]
    num_values: int = likelihoods.NUM_VALUES
    class_names: tuple[str, ...] = ()
    layers: int = 15
    units: int = 128
    kernel_size: int = 5
    cell_layers: int = 1
    dropout: float = 0.0
    label_dropout: float = 0.0
    dtype: str = "float32"
    remat: bool = False

    def __post_init__(self):
        """Check every option, so that a mistake is told before anything is built."""
        require_sides("image_shape", self.image_shape)
        require(
            1 <= self.num_values <= likelihoods.NUM_VALUES,
            f"num_values must be in 1 ... {likelihoods.NUM_VALUES}, got "
            f"{self.num_values}",
        )
        # The prior's check names the options that both have.
        _ = self._prior

    def init(self, key: PRNGKeyArray, batch: Mapping[str, Array]) -> Any:
        """Initialise the PixelCNN at random; of the batch only shapes matter."""
        return self._prior.init(key, self._as_codes(batch))

    def loss(
        self, params: Any, key: PRNGKeyArray, batch: Mapping[str, Array]
    ) -> tuple[Float[Array, ""], tuple[metrics.Metrics, None]]:
        """Return -log p(x) in nats for each value of the image, with dropout.

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
        """Draw images, value after value, in time linear in their pixels.

        Args:
          params: the model's parameters.
          key: decides the draw.
          num_samples: B, where labels do not say it.
          labels: a class for each sample, if the model is class-conditional.
          temperature: below 1 for likelier, above 1 for more varied samples.
          top_k: draw each value from the k likeliest.
          top_p: draw each value from the likeliest that have this probability together.
          progress: called with the number of finished rows, for each row. A part of
            what is compiled, and kept with it: pass the same function each time.

        Raises:
          UserError: labels are missing, not wanted or not classes.
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
        shared = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in ("image_shape", "num_values")
        }
        return Prior(grid=self.image_shape, num_codes=self.num_values, **shared)

    def _codes(self, images) -> Int[Array, "B H W C"]:
        require_shape("images", images, "B", *self.image_shape)
        likelihoods.require_uint8(images)
        require_range("images", images, 0, self.num_values)
        return jnp.asarray(images).astype(jnp.int32)

    def _as_codes(self, batch: Mapping[str, Array]) -> Mapping[str, Array]:
        rest = {name: array for name, array in batch.items() if name != "image"}
        return rest | {"codes": self._codes(batch["image"])}


def _of_dims(of_codes: metrics.Metrics) -> metrics.Metrics:
    """Return the prior's metrics: its codes are the image's values."""
    return {
        "bits_per_dim" if name == "bits_per_code" else name: metric
        for name, metric in of_codes.items()
    }
