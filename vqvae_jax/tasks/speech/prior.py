"""p(z): a WaveNet over the codes of utterances (section 4.3, unconditional speech).

`SequencePrior` holds sizes and options, no arrays, and implements `training.Model`. A
batch is a dict of `codes` `[B, N]`, `mask` `[B, N]` bool, False after each utterance's
end, and `speaker` `[B]`.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from vqvae_jax import likelihoods, metrics, options, sampling
from vqvae_jax.models.base import Shapes, TrainedByGradient
from vqvae_jax.options import GIVEN
from vqvae_jax.runtime.arrays import AnyArray, require_range, require_shape
from vqvae_jax.runtime.errors import require
from vqvae_jax.tasks.speech.wavenet import SequenceCondition, WaveNet, queued


@dataclasses.dataclass(frozen=True, kw_only=True)
class SequencePrior(TrainedByGradient):
    """A WaveNet over sequences of codes.

    Attributes:
      num_codes: K, the VQ-VAE's.
      class_names: the speakers of train, the codes'.
      conditional: whether the prior is conditioned on the speaker.
      latents: codes of a training window, and of a sample.
      network: the WaveNet's sizes.
    """

    num_codes: Annotated[int, GIVEN, ">= 1"]
    class_names: Annotated[tuple[str, ...], GIVEN] = ()
    conditional: bool = False
    latents: Annotated[int, ">= 1"] = 320
    network: WaveNet = WaveNet(layers=8, channels=128)

    def __post_init__(self):
        """Check every option; UserError names the first wrong one."""
        options.check(self)
        require(
            len(self.class_names) > 0 or not self.conditional,
            "conditional must be False: the codes have no class_names",
        )

    def init_batch(self) -> Shapes:
        """Return the shapes of a batch that `init` accepts."""
        return {
            "codes": jax.ShapeDtypeStruct((1, self.latents), jnp.int32),
            "mask": jax.ShapeDtypeStruct((1, self.latents), bool),
            "speaker": jax.ShapeDtypeStruct((1,), jnp.int32),
        }

    @property
    def num_speakers(self) -> int:
        """Speakers that the prior is conditioned on, 0 for none."""
        return len(self.class_names) if self.conditional else 0

    def init(self, key: PRNGKeyArray, batch: Mapping[str, Array]) -> Any:
        """Initialise the WaveNet at random; the batch is not read."""
        del batch
        speakers = jnp.zeros(1, jnp.int32) if self.conditional else None
        codes = jnp.zeros((1, 1), jnp.int32)
        return self._network.init(key, codes, SequenceCondition(speakers))

    def loss(
        self, params: Any, key: PRNGKeyArray, batch: Mapping[str, Array]
    ) -> tuple[Float[Array, ""], tuple[metrics.Metrics, None]]:
        """Return -log p(z) in nats per code that is not padding, with dropout."""
        nats, bits = self._means(params, batch, key)
        loss = metrics.value(nats, batch.get("global_mask"))
        return loss, ({"bits_per_code": bits}, None)

    def evaluate(self, params: Any, batch: Mapping[str, Array]) -> metrics.Metrics:
        """Return the loss and bits per code, without dropout; each code counts once."""
        nats, bits = self._means(params, batch)
        return {"loss": nats, "bits_per_code": bits}

    def log_prob(
        self,
        params: Any,
        codes: Int[AnyArray, "B N"],
        *,
        speakers: Int[AnyArray, " B"] | None = None,
        mask: Bool[AnyArray, "B N"] | None = None,
    ) -> Float[Array, " B"]:
        """Return log p(z) in nats, exactly, of each sequence of any length.

        Args:
          params: the prior's parameters.
          codes: the sequences.
          speakers: of each, if the prior is conditional.
          mask: False after each sequence's end, where codes are ignored.

        Raises:
          UserError: the codes, speakers or mask do not fit this model.
        """
        self._check_params(params)
        require_shape("codes", codes, "B", "N")
        self._check_speakers(speakers, codes.shape[0])
        if mask is None:
            mask = jnp.ones(codes.shape, bool)
        else:
            require_shape("mask", mask, *codes.shape)
            _check_ends(mask)
            codes = jnp.where(mask, codes, 0)
        require_range("codes", codes, 0, self.num_codes)
        return self._log_p(params, jnp.asarray(codes), jnp.asarray(mask), speakers).sum(
            axis=1
        )

    def sample(
        self,
        params: Any,
        key: PRNGKeyArray,
        *,
        num_samples: int,
        speakers: Int[AnyArray, " B"] | None = None,
        num_latents: int | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        given: Int[AnyArray, "B N"] | None = None,
    ) -> Int[Array, "B N"]:
        """Draw sequences of codes, at a cost linear in their length.

        Compiled once for each number of samples and latents. Temperature, top_p,
        speakers and given codes change without recompilation.

        Args:
          params: the prior's parameters.
          key: decides the draw.
          num_samples: B, number of samples.
          speakers: of each sample, if the prior is conditional.
          num_latents: N, by default `latents`.
          temperature: below 1 for likelier, above 1 for more varied samples.
          top_k: draw each code from the k most likely.
          top_p: draw each code from the most likely with this total probability.
          given: codes to keep, -1 at codes to draw. Each code is drawn given those
            before it; given codes after it have no influence.

        Raises:
          UserError: an option is invalid, or an array does not fit this model.
        """
        self._check_params(params)
        sampling.require_drawable(temperature=temperature, top_k=top_k, top_p=top_p)
        num_latents = self.latents if num_latents is None else num_latents
        shape = num_samples, num_latents
        for name, size in zip(("num_samples", "num_latents"), shape, strict=True):
            require(size >= 1, f"{name} must be at least 1, got {size}")
        self._check_speakers(speakers, num_samples)
        if given is None:
            given = np.full(shape, sampling.FREE)
        require_shape("given", given, *shape)
        require_range("given", given, sampling.FREE, self.num_codes)
        return self._draw(
            params,
            key,
            None if speakers is None else jnp.asarray(speakers, jnp.int32),
            (temperature, top_p),
            jnp.asarray(given, jnp.int32),
            top_k=top_k,
        )

    @functools.partial(jax.jit, static_argnames=("self", "top_k"))
    def _draw(
        self, params, key, speakers, options, given, *, top_k
    ) -> Int[Array, "B N"]:
        temperature, top_p = options
        return queued(
            self._network,
            params,
            key,
            shape=given.shape,
            condition=SequenceCondition(speakers),
            adjust=functools.partial(
                sampling.truncated, temperature=temperature, top_k=top_k, top_p=top_p
            ),
            given=given,
        )

    @property
    def _network(self) -> WaveNet:
        return self.network.clone(
            num_values=self.num_codes, num_classes=self.num_speakers
        )

    def _means(
        self, params, batch: Mapping[str, Array], dropout_key=None
    ) -> tuple[metrics.Mean, metrics.Mean]:
        """Return nats and bits per code."""
        mask = batch["mask"]
        speakers = batch["speaker"] if self.conditional else None
        nats = -self._log_p(params, batch["codes"], mask, speakers, dropout_key)
        bits = nats / math.log(2)
        return metrics.mean_over(nats, mask), metrics.mean_over(bits, mask)

    def _log_p(
        self, params, codes, mask, speakers, dropout_key=None
    ) -> Float[Array, "B N"]:
        """Return log p of each code given those before it; 0 in padding."""
        # Padding must not produce NaN, nor its gradient.
        codes = jnp.where(mask, codes, 0)
        speakers = None if speakers is None else jnp.asarray(speakers)
        rngs = {} if dropout_key is None else {"dropout": dropout_key}
        logits = self._network.apply(
            params, codes, SequenceCondition(speakers), rngs=rngs
        )
        return jnp.where(mask, likelihoods.log_p_of(logits, codes), 0.0)

    def _check_params(self, params):
        network = params["params"]
        codes, channels = network["embedding"]["embedding"].shape
        skip_channels = network["to_logits"]["kernel"].shape[0]
        layers = sum(name.startswith("stack_") for name in network)
        of_speakers = network["stack_0"].get("of_labels")
        speakers = of_speakers["kernel"].shape[0] if of_speakers else 0
        found = codes, channels, skip_channels, layers, speakers
        own = self.num_codes, self.network.channels, self.network.skip_channels
        layers = self.network.stacks * self.network.layers
        expected = *own, layers, self.num_speakers
        require(
            found == expected,
            "params are for (codes, channels, skip channels, layers, speakers) = "
            f"{found}, this prior has {expected}",
        )

    def _check_speakers(self, speakers, batch: int):
        require(
            (speakers is not None) == self.conditional,
            f"speakers are needed, one of {self.num_speakers} for each sequence"
            if self.conditional
            else "speakers were given to an unconditional prior",
        )
        if speakers is not None:
            require_shape("speakers", speakers, batch)
            require_range("speakers", speakers, 0, self.num_speakers)


def _check_ends(mask) -> None:
    """Raise UserError unless a mask is True up to an end and False after it."""
    if not isinstance(mask, jax.core.Tracer):
        mask = np.asarray(mask)
        require(
            not (mask[:, 1:] & ~mask[:, :-1]).any(),
            "mask must be False after each sequence's end, got True after False",
        )
