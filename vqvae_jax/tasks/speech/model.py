"""The VQ-VAE of speech (section 4.3): strided encoder, codes in time, WaveNet decoder.

    model = SpeechVQVAE(speaker_names=("anna", "ben"), downsampling=64)
    params = model.init(key, batch)
    codes = model.encode(params, audio)
    audio = model.decode(params, key, codes, speakers=other_speakers)

The decoder is told the speaker, so that the codes need not tell it: decoding with
another one converts the voice. A batch is a dict of `audio` `[B, T]` int16, `mask`
`[B, T]` bool, False from each utterance's end on, and `speaker` `[B]`.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Int16, PRNGKeyArray

from vqvae_jax import metrics, quantizers, sampling
from vqvae_jax.models.base import require_dtype
from vqvae_jax.models.bottleneck import (
    Bottleneck,
    Carry,
    TrainedWithCodebook,
    shared_options,
)
from vqvae_jax.runtime.arrays import AnyArray, require_range, require_shape
from vqvae_jax.runtime.errors import require
from vqvae_jax.tasks.speech.decoder import (
    DecoderParams,
    SpeechDecoder,
    audio_of,
    companded,
    values_of,
)
from vqvae_jax.tasks.speech.encoder import SpeechEncoder, strides_of
from vqvae_jax.tasks.speech.jitter import jittered, moved_by_half


class Params(NamedTuple):
    """Everything that a trained model is.

    encoder: the encoder's parameters.
    decoder: the decoder's parameters.
    codebook: `quantizer.Codebook`.
    """

    encoder: Any
    decoder: DecoderParams
    codebook: quantizers.Codebook


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpeechVQVAE(TrainedWithCodebook):
    """Sizes and options of a VQ-VAE over waveforms.

    Attributes:
      speaker_names: what the numbers of speakers mean; those of train.
      num_codes: K, rows of the codebook.
      dim: D, numbers in a row.
      beta: weight of the commitment loss (equation 3).
      codebook_update: "loss" for the second term of equation 3, "ema" for appendix A.1.
      ema_decay: gamma of the EMA, and of the running counts in either case.
      codebook_init: "kmeans" on the first batch's z_e, or "uniform".
      restart_below: restart codes used less often than this a step; 0 for never.
      downsampling: samples of a code, a product of 2, 3 and 5.
      units: channels of the encoder.
      residual_blocks: of the encoder.
      stacks: of the WaveNet.
      layers: dilations of a stack.
      wavenet_units: channels of the WaveNet's residual path.
      skip_units: channels that its layers' outputs are summed in.
      jitter: part of the codes that a neighbour takes the place of while training,
        against codes that only make sense in one order (Chorowski et al., 2019).
      dtype: compute dtype, "float32" or "bfloat16"; likelihoods and parameters are
        float32 all the same.
      remat: compute what lies inside the WaveNet's layers again for the gradient
        instead of keeping it: less memory, more time, the same results.
    """

    speaker_names: tuple[str, ...]
    num_codes: int = 512
    dim: int = 64
    beta: float = 0.25
    codebook_update: str = "loss"
    ema_decay: float = 0.99
    codebook_init: str = "kmeans"
    restart_below: float = 0.0
    downsampling: int = 64
    units: int = 256
    residual_blocks: int = 2
    stacks: int = 2
    layers: int = 10
    wavenet_units: int = 64
    skip_units: int = 256
    jitter: float = 0.0
    dtype: str = "float32"
    remat: bool = False

    def __post_init__(self):
        """Check every option, so that a mistake is told before anything is built."""
        for low, names in (
            (1, ("units", "stacks", "layers", "wavenet_units", "skip_units")),
            # One code has no bits, and none of what is measured a meaning.
            (2, ("num_codes", "downsampling")),
            (0, ("residual_blocks",)),
        ):
            for name in names:
                value = getattr(self, name)
                require(value >= low, f"{name} must be at least {low}, got {value}")
        require(0 <= self.jitter < 1, f"jitter must be in [0, 1), got {self.jitter}")
        require(len(self.speaker_names) > 0, "speaker_names are empty")
        require_dtype(self.dtype)
        strides_of(self.downsampling)
        # It checks its options as it is made.
        _ = self._bottleneck

    @property
    def num_speakers(self) -> int:
        """The speakers that it can decode as."""
        return len(self.speaker_names)

    def num_latents(
        self, num_samples: int | Int[np.ndarray, " B"]
    ) -> int | Int[np.ndarray, " B"]:
        """Return how many codes so many samples have: one for each begun block."""
        return -(-num_samples // self.downsampling)

    def init(self, key: PRNGKeyArray, batch: Mapping[str, Array]) -> Params:
        """Initialise networks at random, and the codebook from the batch's z_e."""
        encoder_key, decoder_key, codebook_key, kmeans_key = jax.random.split(key, 4)
        values, mask = values_of(batch["audio"]), batch["mask"]
        encoder = self._encoder.init(encoder_key, companded(values[:1]))
        codebook = self._bottleneck.init(
            codebook_key,
            kmeans_key,
            lambda: self._encoder.apply(encoder, companded(values), mask),
            self._code_mask(mask),
        )
        return Params(encoder, self._decoder.init(decoder_key), codebook)

    def loss(
        self, params: Params, key: PRNGKeyArray, batch: Mapping[str, Array]
    ) -> tuple[Float[Array, ""], tuple[metrics.Metrics, Carry]]:
        """Return equation 3, and its terms as metrics.

        The reconstruction term is in nats for each sample that is not padding, the
        other two are averaged over the codes.
        """
        values, mask = values_of(batch["audio"]), batch["mask"]
        code_mask = self._code_mask(mask)
        z_e = self._encoder.apply(params.encoder, companded(values), mask)
        quantized = quantizers.quantize(params.codebook, z_e, code_mask)
        z_q = jittered(key, quantized.z_q, code_mask, rate=self.jitter)
        nats = self._decoder.nats(params.decoder, z_q, batch["speaker"], values, mask)
        results = self._metrics(quantized, nats, mask, code_mask)
        carry = Carry(jax.lax.stop_gradient(z_e), quantized.codes, code_mask)
        loss = self._objective(results, batch.get("global_mask"))
        return loss, (results, carry)

    def evaluate(self, params: Params, batch: Mapping[str, Array]) -> metrics.Metrics:
        """Return the terms of the loss, bits per sample, and whether codes are used.

        `bits_per_sample_codes_moved` is what a sample costs when each utterance's codes
        are those of half of its length later: a decoder that ignores the codes does not
        notice.
        """
        values, mask = values_of(batch["audio"]), batch["mask"]
        speakers, code_mask = batch["speaker"], self._code_mask(mask)
        z_e = self._encoder.apply(params.encoder, companded(values), mask)
        quantized = quantizers.quantize(params.codebook, z_e, code_mask)
        nats = self._decoder.nats(params.decoder, quantized.z_q, speakers, values, mask)
        elsewhere = moved_by_half(quantized.z_q, code_mask)
        moved = self._decoder.nats(params.decoder, elsewhere, speakers, values, mask)
        results = self._metrics(quantized, nats, mask, code_mask)
        # Weighted as the samples are, so that it adds up over batches of other sizes.
        weight = results["reconstruction"].weight
        results["loss"] = metrics.Mean(self._objective(results) * weight, weight)
        for name, of_each in (("", nats), ("_codes_moved", moved)):
            bits = metrics.mean_over(of_each / math.log(2), mask)
            results[f"bits_per_sample{name}"] = bits
        return results

    def encode(
        self,
        params: Params,
        audio: Int16[AnyArray, "B T"],
        mask: Bool[AnyArray, "B T"] | None = None,
    ) -> Int[Array, "B N"]:
        """Return the codes of utterances; those of padding mean nothing.

        Any voice can be encoded, one of train or not.

        Raises:
          UserError: the audio is not int16.
        """
        mask = None if mask is None else jnp.asarray(mask)
        z_e = self._encoder.apply(params.encoder, companded(values_of(audio)), mask)
        return quantizers.quantize(params.codebook, z_e).codes[..., 0]

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
        """Draw audio for codes, said by speakers of train.

        Sample after sample, at a cost that does not depend on how far the decoder sees
        back; all utterances of the batch at once. Compiled once for each shape of codes
        and each top_k. `mask` is False from the end of each utterance's codes on; what
        is drawn there means nothing.

        Raises:
          UserError: the codes or the speakers are not this model's.
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
        z_q = quantizers.lookup(params.codebook, codes[..., None])
        if mask is not None:
            # As in training, where nothing follows an utterance.
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
          UserError: the audio, the codes or the speakers are not this model's.
        """
        values = values_of(audio)
        require_shape(
            "codes", codes, values.shape[0], self.num_latents(values.shape[1])
        )
        require_range("codes", codes, 0, self.num_codes)
        self._check_speakers(speakers, values.shape[0])
        mask = jnp.ones(values.shape, bool) if mask is None else jnp.asarray(mask)
        z_q = quantizers.lookup(params.codebook, jnp.asarray(codes)[..., None])
        speakers = jnp.asarray(speakers)
        return -self._decoder.nats(params.decoder, z_q, speakers, values, mask).sum(
            axis=1
        )

    @property
    def _bottleneck(self) -> Bottleneck:
        return Bottleneck(num_codebooks=1, **shared_options(self))

    @property
    def _encoder(self) -> SpeechEncoder:
        return SpeechEncoder(
            self.dim,
            downsampling=self.downsampling,
            units=self.units,
            residual_blocks=self.residual_blocks,
            dtype=jnp.dtype(self.dtype),
        )

    @property
    def _decoder(self) -> SpeechDecoder:
        return SpeechDecoder(
            dim=self.dim,
            num_speakers=self.num_speakers,
            downsampling=self.downsampling,
            stacks=self.stacks,
            layers=self.layers,
            units=self.wavenet_units,
            skip_units=self.skip_units,
            dtype=self.dtype,
            remat=self.remat,
        )

    def _code_mask(self, mask: Bool[Array, "B T"]) -> Bool[Array, "B N"]:
        return mask[:, :: self.downsampling]

    def _objective(self, means, global_mask=None) -> Float[Array, ""]:
        """Return equation 3 from the means of its terms, or a part's share of it."""
        of_codes = None if global_mask is None else self._code_mask(global_mask)
        terms = {
            "reconstruction": metrics.value(means["reconstruction"], global_mask),
            "codebook": metrics.value(means["codebook"], of_codes),
            "commitment": metrics.value(means["commitment"], of_codes),
        }
        return terms["reconstruction"] + self._bottleneck.objective(terms)

    def _metrics(self, quantized, nats, mask, code_mask) -> dict:
        counts = quantizers.usage(
            quantized.codes, num_codes=self.num_codes, mask=code_mask
        )
        return {
            "reconstruction": metrics.mean_over(nats, mask),
            "codebook": metrics.mean_over(quantized.codebook_loss[..., 0], code_mask),
            "commitment": metrics.mean_over(
                quantized.commitment_loss[..., 0], code_mask
            ),
            "usage": metrics.CodeUsage(counts),
        }

    def _check_speakers(self, speakers, batch: int) -> None:
        require_shape("speakers", speakers, batch)
        if isinstance(speakers, jax.core.Tracer) or speakers.size == 0:
            return
        # As in `require_range`: an array that jit only closes over has values.
        with jax.ensure_compile_time_eval():
            lowest, highest = int(speakers.min()), int(speakers.max())
        require(
            lowest >= 0 and highest < self.num_speakers,
            f"speakers must be numbers of {', '.join(self.speaker_names)} (0 ... "
            f"{self.num_speakers - 1}), got {lowest if lowest < 0 else highest}: "
            "a speaker who was not in training can be encoded, not decoded as",
        )
