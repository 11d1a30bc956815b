"""The commands' maps between recordings and codes, and their sampler of speech."""

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import jax
import numpy as np
from jaxtyping import Int

from vqvae_jax.cli.coding import Coded
from vqvae_jax.cli.inputs import Input
from vqvae_jax.cli.loaded import Loaded, listed, load_prior
from vqvae_jax.cli.sample import Sampler, keys_of
from vqvae_jax.runtime.arrays import require_range, require_shape
from vqvae_jax.runtime.checksums import sha256_of_tree
from vqvae_jax.runtime.errors import require
from vqvae_jax.tasks.speech import audio as audio_lib


class SpeechCoder:
    """The coder of models of speech."""

    suffix = ".wav"
    input_suffixes = audio_lib.SUFFIXES

    def __init__(
        self,
        loaded: Loaded,
        *,
        batch_size: int,
        speaker: int = 0,
        seed: int = 0,
        shaping: dict[str, Any] | None = None,
    ):
        """Set up the functions; nothing is compiled yet.

        Args:
          loaded: the model.
          batch_size: of all batches; the last is padded.
          speaker: to decode with by default.
          seed: of the draw.
          shaping: temperature, top_k and top_p of the audio samples.
        """
        self._model, self._params = loaded.model, loaded.params
        self._rate, self._batch_size = loaded.sample_rate, batch_size
        self._speaker, self._seed = speaker, seed
        self._encode = jax.jit(loaded.model.encode)

        def decode(params, key, codes, speaker, mask):
            audio = loaded.model.decode(
                params,
                key,
                codes[None],
                speakers=speaker[None],
                mask=mask[None],
                **(shaping or {}),
            )
            return audio[0]

        # A key for each, so that no recording depends on the others of its batch.
        self._decode = jax.jit(jax.vmap(decode, (None, 0, 0, 0, 0)))

    @staticmethod
    def require_inputs(files: Sequence[Input], loaded: Loaded) -> None:
        """Raise UserError, naming a recording, unless all appear readable."""
        for file in files:
            audio_lib.inspect(str(file.path), rate=loaded.sample_rate)

    @staticmethod
    def encoding_options(options: argparse.Namespace) -> dict[str, Any]:
        """Return {}; UserError for an option of images."""
        require(not options.resize, "--resize: recordings are not resized")
        return {}

    @staticmethod
    def decoding_options(loaded: Loaded, options: argparse.Namespace) -> dict[str, Any]:
        """Return the speaker and the seed.

        Raises:
          UserError: the speaker is missing or not one of train.
        """
        speaker_of(loaded, options.speaker)
        return {"speaker": options.speaker, "seed": options.seed}

    @classmethod
    def from_options(
        cls, loaded: Loaded, options: argparse.Namespace, *, batch_size: int
    ) -> "SpeechCoder":
        """Make the coder of a command; `encode` has no speaker."""
        if not hasattr(options, "speaker"):
            return cls(loaded, batch_size=batch_size)
        speaker = speaker_of(loaded, options.speaker)
        return cls(loaded, batch_size=batch_size, speaker=speaker, seed=options.seed)

    def encode(self, paths: Sequence[str]) -> list[Coded]:
        """Return the codes of recordings."""
        clips = [audio_lib.read(path, rate=self._rate) for path in paths]
        samples = self._codes_per_second * self._model.downsampling
        audio, mask = self._padded(clips, samples)
        codes = np.asarray(self._encode(self._params, audio, mask))
        lengths = [self._model.num_latents(len(clip)) for clip in clips]
        return [
            Coded(row[:length]) for row, length in zip(codes, lengths, strict=False)
        ]

    def require_codes(self, coded: Coded, *, where: Path) -> None:
        """Raise UserError, naming a file, unless codes are those of an utterance."""
        codes = coded.codes
        require_shape(f"the codes in {where}", codes, "n")
        require(len(codes) > 0, f"there are no codes in {where}")
        require_range(f"the codes in {where}", codes, 0, self._model.num_codes)

    def decode(
        self,
        coded: Mapping[str, Coded],
        speakers: Int[np.ndarray, " B"] | None = None,
    ) -> list[bytes]:
        """Return a WAV file for the codes of each utterance.

        Args:
          coded: codes of each utterance. Its name determines its random numbers.
          speakers: to decode each utterance with.
        """
        codes = [one.codes for one in coded.values()]
        rows, mask = self._padded(codes, self._codes_per_second)
        numbers = np.zeros(self._batch_size, np.uint32)
        numbers[: len(coded)] = [crc32(os.fsencode(name)) for name in coded]
        chosen = np.full(self._batch_size, self._speaker, np.int32)
        if speakers is not None:
            chosen[: len(coded)] = speakers
        keys = keys_of(self._seed, numbers)
        audio = self._decode(self._params, keys, rows, chosen, mask)
        samples = self._model.downsampling
        return [
            audio_lib.wav(clip[: len(one) * samples], rate=self._rate)
            for clip, one in zip(np.asarray(audio), codes, strict=False)
        ]

    def reconstruct(self, paths: Mapping[str, str]) -> list[bytes]:
        """Return a WAV file for the reconstruction of each recording."""
        coded = self.encode(list(paths.values()))
        return self.decode(dict(zip(paths, coded, strict=True)))

    @staticmethod
    def quality() -> str:
        """Return "": another voice is not compared with the recording."""
        return ""

    @property
    def _codes_per_second(self) -> int:
        """Lengths are multiples of it: each length is compiled anew."""
        return -(-self._rate // self._model.downsampling)

    def _padded(self, sequences: Sequence[np.ndarray], multiple_of: int) -> Any:
        """Return sequences as a batch, padded with zeros, and its mask."""
        lengths = np.zeros(self._batch_size, int)
        lengths[: len(sequences)] = [len(sequence) for sequence in sequences]
        longest = -(-max(lengths) // multiple_of) * multiple_of
        batch = np.zeros((self._batch_size, longest), sequences[0].dtype)
        for row, sequence in zip(batch, sequences, strict=False):
            row[: len(sequence)] = sequence
        return batch, np.arange(longest) < lengths[:, None]


def speaker_of(loaded: Loaded, name: str | None) -> int:
    """Return the index of a speaker.

    Raises:
      UserError: no speaker is given, or not one of train.
    """
    names = loaded.model.speaker_names
    require(name is not None, f"--speaker is missing: one of {listed(names)}")
    require(name in names, f"--speaker={name}: there are {listed(names)}")
    return names.index(name)


def speech_sampler(
    loaded: Loaded, options: argparse.Namespace, shaping: dict[str, Any]
) -> Sampler:
    """Return the sampler of speech: codes from the prior, decoded with a speaker.

    Raises:
      UserError: there is no trained prior.
    """
    prior, params = load_prior(loaded, "sequence_prior")
    coder = SpeechCoder(
        loaded, batch_size=options.batch_size, seed=options.seed, shaping=shaping
    )

    def draw(params, key, speaker):
        codes = prior.sample(
            params,
            key,
            num_samples=1,
            speakers=speaker[None] if prior.conditional else None,
            **shaping,
        )
        return codes[0]

    def files(codes, speakers):
        coded = {name: Coded(each) for name, each in codes.items()}
        return coder.decode(coded, speakers)

    names = loaded.model.speaker_names
    return Sampler(params, draw, files, names, ".wav", sha256_of_tree(params))
