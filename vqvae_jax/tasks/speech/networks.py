"""The networks of speech: encoder, jitter of z_q, decoder and its mu-law values.

The encoder of the paper (section 4.3) is strided convolutions of a waveform. The
decoder is a WaveNet conditioned on nearby codes and on the speaker. It predicts samples
companded to 256 values, spaced more finely near silence.
"""

import dataclasses
import math
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import (
    Array,
    Bool,
    Float,
    Float32,
    Int,
    Int16,
    Integer,
    PRNGKeyArray,
    Shaped,
)

from vqvae_jax.likelihoods import NUM_VALUES, log_p_of
from vqvae_jax.networks.convolution import Conv
from vqvae_jax.options import GIVEN, DType
from vqvae_jax.runtime.arrays import AnyArray
from vqvae_jax.runtime.errors import require
from vqvae_jax.sampling.categorical import Adjust
from vqvae_jax.tasks.speech.audio import FULL_SCALE
from vqvae_jax.tasks.speech.wavenet import SequenceCondition, WaveNet, queued

_FACTORS = (2, 3, 5)
_MU = NUM_VALUES - 1


def strides_of(downsampling: int) -> tuple[int, ...]:
    """Factor a downsampling into strides, in descending order.

    64 gives six strides of 2, as in the paper; 640 gives 5 and seven strides of 2.

    Raises:
      UserError: if it has prime factors other than 2, 3 and 5.
    """
    require(downsampling >= 1, f"downsampling must be at least 1, got {downsampling}")
    strides, rest = [], downsampling
    for factor in _FACTORS:
        while rest % factor == 0:
            strides.append(factor)
            rest //= factor
    require(
        rest == 1,
        f"downsampling must be a product of 2, 3 and 5, got {downsampling}",
    )
    return tuple(sorted(strides, reverse=True))


class SpeechEncoder(nn.Module):
    """Maps a waveform [B, T] to z_e [B, ceil(T / downsampling), out_features].

    One convolution per factor of the downsampling, with twice the stride as width, then
    residual blocks of width 3. Every layer's output is set to zero where the mask is
    False, like the padding beyond a sequence's end, so that a padded sequence gives the
    same codes as the sequence alone.

    Attributes:
      out_features: channels of z_e.
      downsampling: samples per code.
      channels: channels of every layer.
      residual_blocks: number of residual blocks after the strided convolutions.
      dtype: compute dtype; z_e is float32.
    """

    out_features: Annotated[int, GIVEN, ">= 1"] = 1
    downsampling: Annotated[int, ">= 2"] = 64
    channels: Annotated[int, ">= 1"] = 256
    residual_blocks: Annotated[int, ">= 0", "<= 1000"] = 2
    dtype: DType = "float32"

    @nn.compact
    def __call__(
        self, waveform: Float[Array, "B T"], mask: Bool[Array, "B T"] | None = None
    ) -> Float32[Array, "B N out_features"]:
        """Encode samples in [-1, 1]; `mask` is False after the end of each sequence."""
        x = waveform[:, None, :, None]
        if mask is None:
            mask = jnp.ones(waveform.shape, bool)

        def keep(x):
            return jnp.where(mask[:, None, :, None], x, jnp.zeros((), x.dtype))

        x = keep(x)
        for number, stride in enumerate(strides_of(self.downsampling)):
            before, after = _padding(stride, x.shape[2])
            x = Conv(
                self.channels,
                (1, 2 * stride),
                stride=stride,
                padding=((0, 0), (before, after)),
                dtype=self.dtype,
                name=f"stage_{number}",
            )(nn.relu(x) if number else x)
            mask = mask[:, ::stride]
            x = keep(x)
        for number in range(self.residual_blocks):
            h = Conv(self.channels, (1, 3), dtype=self.dtype, name=f"wide_{number}")(
                nn.relu(x)
            )
            h = Conv(self.channels, (1, 1), dtype=self.dtype, name=f"narrow_{number}")(
                nn.relu(h)
            )
            x = keep(x + h)
        z_e = Conv(self.out_features, (1, 1), dtype=self.dtype, name="project")(
            nn.relu(x)
        )
        return keep(z_e)[:, 0].astype(jnp.float32)


def _padding(stride: int, length: int) -> tuple[int, int]:
    """Return the zeros before and after that give ceil(length / stride) windows.

    The padding before does not depend on the length, so that the position of a window
    does not depend on the padding after the sequence.
    """
    before = stride // 2
    windows = -(-length // stride)
    return before, max(0, (windows - 1) * stride + 2 * stride - length - before)


def jitter(
    key: PRNGKeyArray,
    z_q: Float[Array, "B N D"],
    mask: Bool[Array, "B N"],
    *,
    rate: float,
) -> Float[Array, "B N D"]:
    """Replace each vector, with probability `rate`, by its left or right neighbour.

    Never copy a neighbour that is padding or beyond an end of the sequence.
    """
    if rate == 0:
        return z_q
    replace_key, side_key = jax.random.split(key)
    replace = jax.random.bernoulli(replace_key, rate, mask.shape)
    side = 2 * jax.random.bernoulli(side_key, shape=mask.shape).astype(jnp.int32) - 1
    positions = jnp.arange(mask.shape[1])[None]
    source = jnp.clip(positions + side, 0, mask.shape[1] - 1)
    allowed = replace & jnp.take_along_axis(mask, source, axis=1)
    source = jnp.where(allowed, source, positions)
    return jnp.take_along_axis(z_q, source[..., None], axis=1)


def roll_by_half(
    z_q: Float[Array, "B N D"], mask: Bool[Array, "B N"]
) -> Float[Array, "B N D"]:
    """Roll each sequence by half of its length, leaving padding in position."""
    lengths = jnp.maximum(mask.sum(axis=1), 1)[:, None]
    positions = jnp.arange(mask.shape[1])[None]
    source = jnp.where(mask, (positions + lengths // 2) % lengths, positions)
    return jnp.take_along_axis(z_q, source[..., None], axis=1)


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
        return queued(
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
    return mu_law_encode(jnp.asarray(audio).astype(jnp.float32) / FULL_SCALE)


def audio_of(values: Int[Array, "B T"]) -> Int16[Array, "B T"]:
    """Return the samples that mu-law values stand for."""
    samples = jnp.round(mu_law_decode(values) * FULL_SCALE)
    return jnp.clip(samples, -FULL_SCALE, FULL_SCALE - 1).astype(jnp.int16)


def companded(values: Int[Array, "B T"]) -> Float[Array, "B T"]:
    """Return mu-law values scaled to -1 ... 1, the encoder's input."""
    return values.astype(jnp.float32) / (0.5 * (NUM_VALUES - 1)) - 1.0


def mu_law_encode(x: Float[Array, "*shape"]) -> Int[Array, "*shape"]:
    """Encode samples in [-1, 1] as the nearest of 256 values, int32.

    Samples outside [-1, 1] are clipped. Silence is encoded as 128.

    f(x) = sign(x) ln(1 + μ|x|) / ln(1 + μ) with μ = 255 (ITU-T G.711; WaveNet,
    van den Oord et al. 2016, section 2.2), followed by uniform quantisation of [-1, 1]
    in 255 steps.
    """
    x = jnp.clip(x.astype(jnp.float32), -1.0, 1.0)
    curve = jnp.sign(x) * jnp.log1p(_MU * jnp.abs(x)) / math.log1p(_MU)
    return jnp.floor((curve + 1.0) / 2.0 * _MU + 0.5).astype(jnp.int32)


def mu_law_decode(values: Integer[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Decode each of 256 values to a float32 sample in [-1, 1].

    Inverts `mu_law_encode` up to half a quantisation step, measured after companding.
    """
    # Cast first: doubling an 8-bit value would overflow.
    curve = (2 * values.astype(jnp.int32) - _MU).astype(jnp.float32) / _MU
    magnitude = jnp.expm1(jnp.abs(curve) * math.log1p(_MU)) / _MU
    return jnp.sign(curve) * magnitude
