"""The continuous counterpart of `Hierarchy`: Gaussian latents, the same networks.

    -log p(codes) <= E_q(z|codes)[-log p(codes | z)] + KL(q(z|codes) || N(0, I))

Each bit that z carries costs a bit of KL, and the PixelCNN learns early to ignore z.
The paper claims (sections 1 and 4.2) that such latents collapse and those of a VQ-VAE
do not.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Annotated

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from vqvae_jax import metrics
from vqvae_jax.models.autoencoder import keys_of, sum_of_each
from vqvae_jax.models.base import TrainedByGradient
from vqvae_jax.models.vae import Posterior, kl_to_standard_normal, reparameterized
from vqvae_jax.options import GIVEN
from vqvae_jax.runtime.arrays import AnyArray, require_shape
from vqvae_jax.tasks.hierarchy.global_latents import GlobalLatents, Params

# The logarithm of q's variance is clipped to this range, as in `VAE`.
_LOG_VARIANCE_RANGE = (-12.0, 6.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class HierarchyVAE(TrainedByGradient, GlobalLatents):
    """A VAE over grids of codes with a PixelCNN as its decoder.

    Attributes:
      z_features: N, the width of z.
    """

    z_features: Annotated[int, GIVEN, ">= 1"]

    @property
    def latent_features(self) -> int:
        """N, the width of z."""
        return self.z_features

    def init(self, key: PRNGKeyArray, batch: Mapping[str, Array]) -> Params:
        """Initialise the networks at random; the batch gives the shapes."""
        return self._init_networks(key, batch["codes"], heads=2)

    def loss(
        self, params: Params, key: PRNGKeyArray, batch: Mapping[str, Array]
    ) -> tuple[Float[Array, ""], tuple[metrics.Metrics, None]]:
        """Return the negative bound in nats per code, from one draw of z."""
        codes, mask = batch["codes"], batch["mask"]
        latent_key, dropout_key = jax.random.split(key)
        keys = jax.random.split(latent_key, codes.shape[0])
        nats, kl = self._bound(params, keys, codes, dropout_key)
        loss = metrics.masked_mean(
            self._per_code(nats + kl), mask, batch.get("global_mask")
        )
        return loss, (self._metrics(nats, kl, mask), None)

    def evaluate(self, params: Params, batch: Mapping[str, Array]) -> metrics.Metrics:
        """Return both terms of the bound, without dropout and for a fixed draw of z."""
        codes, mask = batch["codes"], batch["mask"]
        nats, kl = self._bound(params, keys_of(codes), codes)
        loss = metrics.mean(self._per_code(nats + kl), mask)
        return {**self._metrics(nats, kl, mask), "loss": loss}

    def encode(
        self, params: Params, codes: Int[AnyArray, "B H W C"]
    ) -> Float[Array, "B N"]:
        """Draw z from q(z|codes) with keys that depend on each frame alone.

        Raises:
          UserError: the codes do not have this model's grid.
        """
        return reparameterized(keys_of(codes), self._posterior(params, codes))

    def _check_latents(self, latents: AnyArray) -> None:
        require_shape("z", latents, "B", self.latent_features)

    def _vectors(self, params: Params, latents: AnyArray) -> Float[Array, "B N"]:
        del params
        return jnp.asarray(latents)

    def _posterior(self, params, codes) -> Posterior:
        heads = self._encoded(params, codes, heads=2)
        mean, log_variance = jnp.split(heads, 2, axis=-1)
        return Posterior(mean, jnp.clip(log_variance, *_LOG_VARIANCE_RANGE))

    def _bound(self, params, keys, codes, dropout_key=None):
        """Return -log p(codes | z) and the KL of each frame, in nats."""
        posterior = self._posterior(params, codes)
        z = reparameterized(keys, posterior)
        kl = sum_of_each(kl_to_standard_normal(posterior))
        return self._nats(params, codes, z, dropout_key), kl

    def _metrics(self, nats, kl, mask) -> dict:
        kl_bits = metrics.mean(kl / math.log(2), mask)
        return {**self._bits_per_code(nats, mask), "kl_bits_per_frame": kl_bits}
