"""The VQ-VAE of speech (section 4.3): strided encoder, codes in time, WaveNet decoder.

    model = SpeechVQVAE(speaker_names=("anna", "ben"))
    params = model.init(key, batch)
    codes = model.encode(params, audio)
    audio = model.decode(params, key, codes, speakers=other_speakers)

The decoder is conditioned on the speaker, so that the codes need not encode the voice:
decoding with another speaker converts it. A batch is a dict of `audio` `[B, T]` int16,
`mask` `[B, T]` bool, False after each utterance's end, and `speaker` `[B]`.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Int16, PRNGKeyArray

from vqvae_jax import metrics, options, quantizers, sampling
from vqvae_jax.models.base import Carry, Shapes, TrainedWithQuantizer, Traits
from vqvae_jax.options import GIVEN, OneOf
from vqvae_jax.quantizers import VQ, Quantizer
from vqvae_jax.runtime.arrays import AnyArray, require_range, require_shape
from vqvae_jax.runtime.errors import UserError, require
from vqvae_jax.tasks.speech.networks import (
    DecoderParams,
    SpeechDecoder,
    SpeechEncoder,
    audio_of,
    companded,
    jitter,
    roll_by_half,
    strides_of,
    values_of,
)
from vqvae_jax.tasks.speech.wavenet import WaveNet


class Params(NamedTuple):
    """The parameters of a VQ-VAE of speech.

    encoder: the encoder's parameters.
    decoder: the decoder's parameters.
    quantizer: the quantizer's state.
    """

    encoder: Any
    decoder: DecoderParams
    quantizer: Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpeechVQVAE(TrainedWithQuantizer):
    """A VQ-VAE over waveforms.

    Attributes:
      speaker_names: of speakers 0, 1, ... of train.
      quantizer: of the encoder's output; one code per vector.
      encoder: from samples to z_e; its `downsampling` is the samples per code.
      decoder: the WaveNet.
      jitter: fraction of codes replaced by a neighbour in training, so that codes do
        not depend on their exact order (Chorowski et al., 2019).
    """

    speaker_names: Annotated[tuple[str, ...], GIVEN]
    quantizer: Annotated[Quantizer, OneOf(quantizers.MEMBERS)] = VQ()
    encoder: SpeechEncoder = SpeechEncoder()
    decoder: WaveNet = WaveNet()
    jitter: Annotated[float, ">= 0", "< 1"] = 0.0

    traits = Traits(
        likelihood="bound",
        latent="codes",
        encodes=True,
        figure=("test_bits_per_sample", "bits per sample"),
        draws_logits=True,
        can_collapse=True,
    )

    def __post_init__(self):
        """Check every option; UserError names the first wrong one."""
        options.check(self)
        require(
            # A single code carries no bits, and the evaluation divides by them.
            self.quantizer.num_codes >= 2,
            f"quantizer.num_codes must be >= 2, got {self.quantizer.num_codes}",
        )
        require(
            self.quantizer.codes_per_vector == 1,
            "quantizer must give one code per vector, got "
            f"{self.quantizer.codes_per_vector}",
        )
        require(
            self.decoder.dropout == 0,
            f"decoder.dropout={self.decoder.dropout} does nothing: the decoder of "
            "speech is trained without dropout. Set it to 0.0",
        )
        require(len(self.speaker_names) > 0, "speaker_names are empty")
        try:
            strides_of(self.downsampling)
        except UserError as error:
            raise UserError(f"encoder.{error}") from error

    def init_batch(self) -> Shapes:
        """Return the shapes of a batch that `init` accepts."""
        samples = 4 * self.downsampling
        return {
            "audio": jax.ShapeDtypeStruct((1, samples), jnp.int16),
            "mask": jax.ShapeDtypeStruct((1, samples), bool),
            "speaker": jax.ShapeDtypeStruct((1,), jnp.int32),
        }

    @property
    def num_codes(self) -> int:
        """K, the values that a code can take."""
        return self.quantizer.num_codes

    @property
    def downsampling(self) -> int:
        """Samples per code."""
        return self.encoder.downsampling

    @property
    def num_speakers(self) -> int:
        """Speakers to decode as."""
        return len(self.speaker_names)

    def num_latents(
        self, num_samples: int | Int[np.ndarray, " B"]
    ) -> int | Int[np.ndarray, " B"]:
        """Return the number of codes of `num_samples` samples, rounded up."""
        return -(-num_samples // self.downsampling)

    def init(self, key: PRNGKeyArray, batch: Mapping[str, Array]) -> Params:
        """Initialise the networks at random, and the quantizer from the batch's z_e."""
        encoder_key, decoder_key, codebook_key, kmeans_key = jax.random.split(key, 4)
        values, mask = values_of(batch["audio"]), batch["mask"]
        encoder = self._encoder.init(encoder_key, companded(values[:1]))
        state = self._init_quantizer(
            codebook_key,
            kmeans_key,
            lambda: self._encoder.apply(encoder, companded(values), mask),
            self._code_mask(mask),
        )
        return Params(encoder, self._decoder.init(decoder_key), state)

    def loss(
        self, params: Params, key: PRNGKeyArray, batch: Mapping[str, Array]
    ) -> tuple[Float[Array, ""], tuple[metrics.Metrics, Carry]]:
        """Return equation 3, with its terms as metrics.

        The reconstruction term is in nats per sample that is not padding; the terms of
        the quantizer are averaged over the codes.
        """
        quantizer_key, jitter_key = jax.random.split(key)
        values, mask = values_of(batch["audio"]), batch["mask"]
        code_mask = self._code_mask(mask)
        z_e = self._encoder.apply(params.encoder, companded(values), mask)
        quantized = self.quantizer.quantize(
            params.quantizer, z_e, code_mask, quantizer_key
        )
        z_q = jitter(jitter_key, quantized.z_q, code_mask, rate=self.jitter)
        nats = self._decoder.nats(params.decoder, z_q, batch["speaker"], values, mask)
        results = self._metrics(quantized, nats, mask, code_mask)
        carry = Carry(jax.lax.stop_gradient(z_e), quantized.codes, code_mask)
        loss = self._objective(results, quantized, batch.get("global_mask"))
        return loss, (results, carry)

    def evaluate(self, params: Params, batch: Mapping[str, Array]) -> metrics.Metrics:
        """Return the terms of the loss, and bits per sample given own and moved codes.

        `bits_per_sample_codes_moved` is the cost given each utterance's codes rotated
        by half of its length. It equals `bits_per_sample` where the decoder ignores the
        codes.
        """
        values, mask = values_of(batch["audio"]), batch["mask"]
        speakers, code_mask = batch["speaker"], self._code_mask(mask)
        z_e = self._encoder.apply(params.encoder, companded(values), mask)
        quantized = self.quantizer.quantize(params.quantizer, z_e, code_mask)
        nats = self._decoder.nats(params.decoder, quantized.z_q, speakers, values, mask)
        rolled = roll_by_half(quantized.z_q, code_mask)
        moved = self._decoder.nats(params.decoder, rolled, speakers, values, mask)
        results = self._metrics(quantized, nats, mask, code_mask)
        # Weighted by samples, so that batches of different sizes add up.
        weight = results["reconstruction"].weight
        loss = self._objective(results, quantized)
        results["loss"] = metrics.Mean(loss * weight, weight)
        for name, costs in (("", nats), ("_codes_moved", moved)):
            bits = metrics.mean_over(costs / math.log(2), mask)
            results[f"bits_per_sample{name}"] = bits
        return results

    def encode(
        self,
        params: Params,
        audio: Int16[AnyArray, "B T"],
        mask: Bool[AnyArray, "B T"] | None = None,
    ) -> Int[Array, "B N"]:
        """Return the codes of utterances; those of padding are arbitrary.

        Voices outside of train can be encoded.

        Raises:
          UserError: the audio is not int16.
        """
        mask = None if mask is None else jnp.asarray(mask)
        z_e = self._encoder.apply(params.encoder, companded(values_of(audio)), mask)
        return self.quantizer.quantize(params.quantizer, z_e).codes[..., 0]

    def decode(
        self,
        params: Params,
        key: PRNGKeyArray,
        codes: Int[AnyArray, "B N"],
        *,
        speakers: Int[AnyArray, " B"],
        mask: Bool[AnyArray, "B N"] | None = None,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
    ) -> Int16[Array, "B T"]:
        """Draw audio for codes, spoken by speakers of train.

        Samples are drawn one by one, for all utterances of the batch at once, at a cost
        independent of the receptive field. Compiled once for each shape of codes and
        each top_k. `mask` is False after the end of each utterance's codes; samples
        drawn there are arbitrary.

        Raises:
          UserError: the codes or the speakers do not fit this model.
        """
        require_shape("codes", codes, "B", "N")
        require_range("codes", codes, 0, self.num_codes)
        self._check_speakers(speakers, codes.shape[0])
        sampling.require_drawable(temperature=temperature, top_k=top_k, top_p=top_p)
        if mask is not None:
            require_shape("mask", mask, *codes.shape)
        arrays = jax.tree.map(jnp.asarray, (codes, speakers, mask))
        return self._draw(params, key, *arrays, (temperature, top_p), top_k=top_k)

    @functools.partial(jax.jit, static_argnames=("self", "top_k"))
    def _draw(
        self, params, key, codes, speakers, mask, options, *, top_k
    ) -> Int16[Array, "B T"]:
        temperature, top_p = options
        z_q = self.quantizer.lookup(params.quantizer, codes[..., None])
        if mask is not None:
            # As in training, where padding is zero.
            z_q = jnp.where(mask[..., None], z_q, 0.0)
        adjust = functools.partial(
            sampling.truncated, temperature=temperature, top_k=top_k, top_p=top_p
        )
        return audio_of(
            self._decoder.draw(params.decoder, key, z_q, speakers, adjust=adjust)
        )

    def log_prob(
        self,
        params: Params,
        audio: Int16[AnyArray, "B T"],
        codes: Int[AnyArray, "B N"],
        *,
        speakers: Int[AnyArray, " B"],
        mask: Bool[AnyArray, "B T"] | None = None,
    ) -> Float[Array, " B"]:
        """Return log p(x|z) of each utterance in nats, for any codes.

        Raises:
          UserError: the audio, the codes or the speakers do not fit this model.
        """
        values = values_of(audio)
        require_shape(
            "codes", codes, values.shape[0], self.num_latents(values.shape[1])
        )
        require_range("codes", codes, 0, self.num_codes)
        self._check_speakers(speakers, values.shape[0])
        mask = jnp.ones(values.shape, bool) if mask is None else jnp.asarray(mask)
        z_q = self.quantizer.lookup(params.quantizer, jnp.asarray(codes)[..., None])
        speakers = jnp.asarray(speakers)
        return -self._decoder.nats(params.decoder, z_q, speakers, values, mask).sum(
            axis=1
        )

    @property
    def _encoder(self) -> SpeechEncoder:
        return self.encoder.clone(out_features=self.quantizer.features)

    @property
    def _decoder(self) -> SpeechDecoder:
        return SpeechDecoder(
            dim=self.quantizer.features,
            num_speakers=self.num_speakers,
            downsampling=self.downsampling,
            wavenet=self.decoder,
        )

    def summary(self, sample_rate: int | None) -> dict[str, str]:
        """Return lines of `pretrained.card.summary` about the codes."""
        samples = self.downsampling
        lines = {"codes": f"one of K = {self.num_codes} for {samples} samples"}
        if sample_rate is not None:
            bits = sample_rate / samples * self.quantizer.bits
            lines["samples per second"] = f"{sample_rate:,}"
            lines["bits of a second's codes"] = f"{bits:,.0f}"
        return lines

    def codebooks(self, params: Params) -> Float[Array, "C K D"] | None:
        """Return the vector of each code; None where the quantizer has no table."""
        return self.quantizer.codebooks(params.quantizer)

    def _code_mask(self, mask: Bool[Array, "B T"]) -> Bool[Array, "B N"]:
        return mask[:, :: self.downsampling]

    def _objective(self, means, quantized, global_mask=None) -> Float[Array, ""]:
        """Return equation 3 from the means of its terms, or a part's share of it."""
        code_mask = None if global_mask is None else self._code_mask(global_mask)
        reconstruction = metrics.value(means["reconstruction"], global_mask)
        losses = {n: metrics.value(means[n], code_mask) for n in quantized.losses}
        return reconstruction + self.quantizer.total_loss(losses)

    def _metrics(self, quantized, nats, mask, code_mask) -> dict:
        counts = quantizers.usage(
            quantized.codes, num_codes=self.num_codes, mask=code_mask
        )
        return {
            "reconstruction": metrics.mean_over(nats, mask),
            **{
                name: metrics.mean_over(term[..., 0], code_mask)
                for name, term in quantized.losses.items()
            },
            "usage": metrics.CodeUsage(counts),
        }

    def _check_speakers(self, speakers, batch: int) -> None:
        require_shape("speakers", speakers, batch)
        if isinstance(speakers, jax.core.Tracer) or speakers.size == 0:
            return
        # As in `require_range`: an array that jit closes over has known values.
        with jax.ensure_compile_time_eval():
            lowest, highest = int(speakers.min()), int(speakers.max())
        require(
            lowest >= 0 and highest < self.num_speakers,
            f"speakers must be numbers of {', '.join(self.speaker_names)} (0 ... "
            f"{self.num_speakers - 1}), got {lowest if lowest < 0 else highest}: "
            "speakers outside of train can be encoded, not decoded",
        )
