"""VIMCO: discrete latents trained without quantization (section 4.1).

    L = E[log 1/S sum_s w_s],   w_s = p(x|z_s) p(z_s) / q(z_s|x),   z_s ~ q(z|x)

Mnih and Rezende, *Variational Inference for Monte Carlo Objectives*, 2016. The latents
are the VQ-VAE's: a grid `[h, w, G]` of K categories each, independent given the image,
and uniform under the prior. With 50 samples the paper reports 5.14 bits/dim on
CIFAR-10.

    model = VIMCO(image_shape=(32, 32, 3), num_codebooks=10)
    params = model.init(key, batch)
    (loss, (metrics, _)) = model.loss(params, key, batch)

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
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray, UInt8

from vqvae_jax import metrics, quantizers
from vqvae_jax.models.autoencoder import (
    ImageAutoencoder,
    keys_of,
    over_samples,
    quality,
    sum_of_each,
)
from vqvae_jax.models.base import Traits
from vqvae_jax.networks.autoencoder import Encoder
from vqvae_jax.runtime.arrays import AnyArray, require_range, require_shape
from vqvae_jax.runtime.errors import require


class Params(NamedTuple):
    """The parameters of VIMCO.

    encoder: the encoder's parameters.
    decoder: the decoder's parameters.
    tables: `[G, K, D]`, the decoder's input for each category of each codebook.
    """

    encoder: Any
    decoder: Any
    tables: Float[Array, "G K D"]


class Draws(NamedTuple):
    """S samples of z for each image.

    log_weights: `[S, B]` log p(x, z_s) / q(z_s|x), nats.
    log_q: `[S, B]` log q(z_s|x), nats.
    log_p: `[S, B]` log p(x|z_s), nats.
    """

    log_weights: Float[Array, "S B"]
    log_q: Float[Array, "S B"]
    log_p: Float[Array, "S B"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class VIMCO(ImageAutoencoder):
    """VIMCO over images: an autoencoder with a grid of categorical latents.

    Attributes:
      num_codes: K, categories of each latent.
      num_codebooks: G, latents of each cell of the grid.
      dim: D, numbers in a row of the decoder's tables.
      num_samples: S, draws of z for each image, in training and evaluation.
      samples_at_once: draws that the decoder takes together; memory grows with it.
    """

    num_codes: Annotated[int, ">= 1"] = 512
    num_codebooks: Annotated[int, ">= 1"] = 1
    dim: Annotated[int, ">= 1"] = 64
    num_samples: Annotated[int, ">= 2"] = 50
    samples_at_once: Annotated[int, ">= 1"] = 1

    traits = Traits(likelihood="bound", latent="codes", encodes=True)

    def __post_init__(self):
        """Check every option; UserError names the first wrong one."""
        super().__post_init__()
        require(
            self.num_samples % self.samples_at_once == 0,
            f"num_samples must be a multiple of samples_at_once, got "
            f"{self.num_samples} and {self.samples_at_once}",
        )

    @property
    def grid(self) -> tuple[int, int, int]:
        """The shape `(h, w, G)` of an image's codes."""
        return *self._cells, self.num_codebooks

    def init(self, key: PRNGKeyArray, batch: Mapping[str, Array]) -> Params:
        """Initialise everything at random; the batch gives the shapes."""
        encoder_key, decoder_key, tables_key = jax.random.split(key, 3)
        encoder = self._encoder.init(encoder_key, self._as_input(batch["image"][:1]))
        features = self.num_codebooks * self.dim
        z = jnp.zeros((1, *self._cells, features))
        decoder = self._decoder.init(decoder_key, z)
        shape = (self.num_codebooks, self.num_codes, self.dim)
        return Params(encoder, decoder, jax.random.normal(tables_key, shape))

    def loss(
        self, params: Params, key: PRNGKeyArray, batch: Mapping[str, Array]
    ) -> tuple[Float[Array, ""], tuple[metrics.Metrics, None]]:
        """Return -L in nats per value of the image.

        Its gradient is VIMCO's estimate, not the derivative of the value.

        Raises:
          UserError: the images are not uint8 of image_shape.
        """
        images, mask = batch["image"], batch["mask"]
        log_q_of_each = self._log_posterior(params, images)
        keys = jax.random.split(key, images.shape[0])
        draws = self._draws(params, keys, images, log_q_of_each)
        surrogate, bound = objective(draws.log_weights, draws.log_q)
        with_gradient = surrogate + lax.stop_gradient(bound - surrogate)
        nats = -with_gradient / self.num_dims
        loss = metrics.masked_mean(nats, mask, batch.get("global_mask"))
        return loss, (self._metrics(draws, log_q_of_each, mask), None)

    def evaluate(self, params: Params, batch: Mapping[str, Array]) -> metrics.Metrics:
        """Return -L, PSNR of the posterior's mode, usage of its codes and bits/dim.

        The draws' keys depend on each image alone, so that evaluation is deterministic.
        Per image there are `bits`, which are -L, and the bits of distortion and of rate
        under q, whose sum is one sample's bound, above -L.
        """
        images, mask = batch["image"], batch["mask"]
        log_q_of_each = self._log_posterior(params, images)
        draws = self._draws(params, keys_of(images), images, log_q_of_each)
        loss = -log_mean_exp(draws.log_weights, axis=0) / self.num_dims
        z = self._embedded(params, _mode(log_q_of_each))
        return {
            **self._metrics(draws, log_q_of_each, mask),
            **quality(images, self._mean_image(params.decoder, z), mask),
            **self._bits_per_dim(loss, mask),
            **self._bits_of_each(
                mask,
                {
                    "distortion_bits": self._distortion(draws),
                    "rate_bits": self._kl_to_uniform(log_q_of_each),
                },
            ),
            "loss": metrics.mean(loss, mask),
        }

    def encode(
        self, params: Params, images: UInt8[AnyArray, "B H W C"]
    ) -> Int[Array, "B h w G"]:
        """Return the most likely codes under q(z|x).

        Raises:
          UserError: the images are not uint8 of image_shape.
        """
        return _mode(self._log_posterior(params, images))

    def decode(
        self, params: Params, codes: Int[AnyArray, "B h w G"]
    ) -> UInt8[Array, "B H W C"]:
        """Return the mean image of p(x|z) for codes, rounded to 256 values.

        Raises:
          UserError: the codes do not have this model's grid, or are not in 0 ... K - 1.
        """
        require_shape("codes", codes, "B", *self.grid)
        require_range("codes", codes, 0, self.num_codes)
        return self._decode(params.decoder, self._embedded(params, jnp.asarray(codes)))

    def sample(
        self, params: Params, key: PRNGKeyArray, *, num_samples: int
    ) -> UInt8[Array, "B H W C"]:
        """Draw codes from the uniform prior, and return the mean images of p(x|z)."""
        codes = jax.random.randint(key, (num_samples, *self.grid), 0, self.num_codes)
        return self.decode(params, codes)

    def codebooks(self, params: Params) -> Float[Array, "G K D"]:
        """Return the decoder's input for each code."""
        return params.tables

    @property
    def _encoder(self) -> Encoder:
        return self._encoder_to(self.num_codebooks * self.num_codes)

    def _log_posterior(self, params, images) -> Float[Array, "B h w G K"]:
        """Return log q of each category of each latent."""
        logits = self._encoder.apply(params.encoder, self._as_input(images))
        shape = (*logits.shape[:-1], self.num_codebooks, self.num_codes)
        return jax.nn.log_softmax(logits.reshape(shape))

    def _embedded(self, params, codes) -> Float[Array, "B h w GD"]:
        rows = quantizers.gather_rows(params.tables, codes)
        return rows.reshape(*codes.shape[:-1], -1)

    def _draws(self, params, keys: Key[Array, " B"], images, log_q_of_each) -> Draws:
        codes = draw_codes(keys, log_q_of_each, num_samples=self.num_samples)

        def log_p_of(number):
            return self._log_p(
                params.decoder, self._embedded(params, codes[number]), images
            )

        log_prior = -self.num_latents * math.log(self.num_codes)
        log_q = log_q_of(codes, log_q_of_each)
        log_p = over_samples(log_p_of, self.num_samples, at_once=self.samples_at_once)
        return Draws(log_p + log_prior - log_q, log_q, log_p)

    def _metrics(self, draws: Draws, log_q_of_each, mask) -> dict:
        codes = _mode(log_q_of_each)
        return {
            "reconstruction": metrics.mean(self._distortion(draws), mask),
            "usage": metrics.code_usage(codes, num_codes=self.num_codes, mask=mask),
        }

    def _distortion(self, draws: Draws) -> Float[Array, " B"]:
        return -draws.log_p.mean(axis=0) / self.num_dims

    def _kl_to_uniform(self, log_q_of_each) -> Float[Array, " B"]:
        """Return KL(q(z|x) || p(z)) in nats per value, in closed form."""
        negative_entropy = sum_of_each(jnp.exp(log_q_of_each) * log_q_of_each)
        uniform = self.num_latents * math.log(self.num_codes)
        return (negative_entropy + uniform) / self.num_dims


def _mode(log_q_of_each: Float[Array, "B h w G K"]) -> Int[Array, "B h w G"]:
    return jnp.argmax(log_q_of_each, axis=-1).astype(jnp.int32)


def objective(
    log_weights: Float[Array, "S B"], log_q: Float[Array, "S B"]
) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
    """Return a surrogate whose gradient estimates that of L, and L itself, in nats.

    The gradient of the surrogate is

        sum_j (L - L_-j) grad log q(z_j|x) + sum_j w_j / (sum_i w_i) grad log w_j

    where L_-j is L with the weight of sample j replaced by the geometric mean of the
    others': a baseline that does not depend on z_j, so the estimate is unbiased. All of
    it is computed from logarithms without their common offset.

    Args:
      log_weights: log p(x, z_s) / q(z_s|x), with the gradient of p and of q.
      log_q: log q(z_s|x).

    Raises:
      UserError: there are fewer than two samples.
    """
    num_samples = log_weights.shape[0]
    require(
        num_samples >= 2, f"the baseline needs at least 2 samples, got {num_samples}"
    )
    offset = lax.stop_gradient(log_weights.max(axis=0))
    log_w = log_weights - offset[None]
    bound = log_mean_exp(log_w, axis=0)
    log_geometric_mean = (log_w.sum(axis=0)[None] - log_w) / (num_samples - 1)
    is_own = jnp.eye(num_samples, dtype=bool)[:, :, None]
    without_own = jnp.where(is_own, log_geometric_mean[:, None], log_w[None])
    baseline = log_mean_exp(without_own, axis=1)
    signal = lax.stop_gradient(bound[None] - baseline)
    return jnp.sum(signal * log_q, axis=0) + bound, bound + offset


def draw_codes(
    keys: Key[Array, " B"],
    log_q_of_each: Float[Array, "B h w G K"],
    *,
    num_samples: int,
) -> Int[Array, "S B h w G"]:
    """Draw z_s ~ q(z|x), each image with its own key and one uniform number per code.

    Gumbel noise would take K random numbers per code.
    """
    cumulative = jnp.cumsum(jnp.exp(lax.stop_gradient(log_q_of_each)), axis=-1)
    # Rounding: the probabilities do not add up to exactly 1.
    total = cumulative[..., -1]

    shape = (num_samples, *total.shape[1:])
    u = jax.vmap(lambda key: jax.random.uniform(key, shape), out_axes=1)(keys)

    def draw(u):
        # The first category whose cumulative probability is above u.
        below = cumulative[..., :-1] <= (u * total)[..., None]
        return jnp.sum(below, axis=-1, dtype=jnp.int32)

    return lax.map(draw, u)


def log_q_of(
    codes: Int[Array, "S B h w G"], log_q_of_each: Float[Array, "B h w G K"]
) -> Float[Array, "S B"]:
    """Return log q(z_s|x), in one gather so that its gradient is one scatter."""
    chosen = jnp.take_along_axis(log_q_of_each, jnp.moveaxis(codes, 0, -1), axis=-1)
    return chosen.sum(axis=(1, 2, 3)).T


def log_mean_exp(x: Float[Array, "..."], *, axis: int) -> Float[Array, "..."]:
    """Return log of the mean of exp(x) over an axis."""
    return jax.nn.logsumexp(x, axis=axis) - math.log(x.shape[axis])
