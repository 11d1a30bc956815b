"""The speech decoder: a WaveNet conditioned on nearby codes and on the speaker."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Int16, PRNGKeyArray, Shaped

from vqvae_jax.likelihoods import NUM_VALUES, log_p_of
from vqvae_jax.networks.convolution import Conv
from vqvae_jax.runtime.arrays import AnyArray
from vqvae_jax.runtime.errors import require
from vqvae_jax.sampling.categorical import Adjust
from vqvae_jax.tasks.speech import queued_sampling
from vqvae_jax.tasks.speech.mu_law import mu_law_decode, mu_law_encode
from vqvae_jax.tasks.speech.wavenet import SequenceCondition, WaveNet

_FULL_SCALE = 32_768.0


class DecoderParams(NamedTuple):
    """The parameters of the decoder.

    context: those of the convolution over z_q.
    wavenet: those of the WaveNet.
    """

    context: Any
    wavenet: Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpeechDecoder:
    """A WaveNet conditioned on z_q through a convolution.

    Attributes:
      dim: D, features of each z_q.
      num_speakers: voices.
      downsampling: samples per code.
      wavenet: the WaveNet's sizes.
    """

    dim: int
    num_speakers: int
    downsampling: int
    wavenet: WaveNet

    def init(self, key: PRNGKeyArray) -> DecoderParams:
        """Initialise both networks at random."""
        context_key, wavenet_key = jax.random.split(key)
        context = self._context.init(context_key, jnp.zeros((1, 1, 4, self.dim)))
        features = jnp.zeros((1, 1, self._features))
        condition = SequenceCondition(jnp.zeros(1, jnp.int32), features)
        values = jnp.zeros((1, 1), jnp.int32)
        return DecoderParams(
            context, self._wavenet.init(wavenet_key, values, condition)
        )

    def nats(
        self,
        params: DecoderParams,
        z_q: Float[Array, "B N D"],
        speakers: Int[Array, " B"],
        values: Int[Array, "B T"],
        mask: Bool[Array, "B T"],
    ) -> Float[Array, "B T"]:
        """Return -log p of each value given those before it; 0 in padding."""
        # Padding must not reach the features of the last codes.
        code_mask = mask[:, :: self.downsampling]
        z_q = jnp.where(code_mask[..., None], z_q, 0.0)
        condition = self._condition(params, z_q, speakers)
        logits = self._wavenet.apply(params.wavenet, values, condition)
        return jnp.where(mask, -log_p_of(logits, values), 0.0)

    def draw(
        self,
        params: DecoderParams,
        key: PRNGKeyArray,
        z_q: Float[Array, "B N D"],
        speakers: Int[Array, " B"],
        *,
        adjust: Adjust,
    ) -> Int[Array, "B T"]:
        """Draw the values of all samples of the codes."""
        return queued_sampling.queued(
            self._wavenet,
            params.wavenet,
            key,
            shape=(z_q.shape[0], z_q.shape[1] * self.downsampling),
            condition=self._condition(params, z_q, speakers),
            adjust=adjust,
        )

    @property
    def _features(self) -> int:
        return 2 * self.wavenet.channels

    @property
    def _context(self) -> Conv:
        return Conv(self._features, (1, 3), dtype=self.wavenet.dtype)

    @property
    def _wavenet(self) -> WaveNet:
        return self.wavenet.clone(
            num_values=NUM_VALUES,
            num_classes=self.num_speakers,
            feature_channels=self._features,
            steps_per_feature=self.downsampling,
            ordered=True,
        )

    def _condition(self, params, z_q, speakers) -> SequenceCondition:
        features = self._context.apply(params.context, z_q[:, None])[:, 0]
        return SequenceCondition(speakers, features)


def values_of(audio: Shaped[AnyArray, "B T"]) -> Int[Array, "B T"]:
    """Return the mu-law values of samples.

    Raises:
      UserError: the audio is not int16.
    """
    require(
        audio.dtype == jnp.int16,
        f"audio must be int16, got {audio.dtype}: scale samples of -1 ... 1 by 32767",
    )
    return mu_law_encode(jnp.asarray(audio).astype(jnp.float32) / _FULL_SCALE)


def audio_of(values: Int[Array, "B T"]) -> Int16[Array, "B T"]:
    """Return the samples that mu-law values stand for."""
    samples = jnp.round(mu_law_decode(values) * _FULL_SCALE)
    return jnp.clip(samples, -_FULL_SCALE, _FULL_SCALE - 1).astype(jnp.int16)


def companded(values: Int[Array, "B T"]) -> Float[Array, "B T"]:
    """Return mu-law values scaled to -1 ... 1, the encoder's input."""
    return values.astype(jnp.float32) / (0.5 * (NUM_VALUES - 1)) - 1.0
