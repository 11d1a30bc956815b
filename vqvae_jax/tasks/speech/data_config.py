"""The `data` section of a speech experiment's config."""

import dataclasses
from typing import Annotated, Any

from vqvae_jax import registry
from vqvae_jax.data.config import SourceConfig

SUFFIXES = (".wav", ".flac")
PHONES_SUFFIX = ".tsv"


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpeechDataConfig(SourceConfig):
    """Options of a set of speech: which recordings to read and how to crop them.

    Attributes:
      name: TFDS name such as "vctk" or "librispeech", or the embedded "speech". Unused
        for a folder.
      sample_rate: in Hz; recordings of another rate are resampled.
      crop_samples: length of a training example, at `sample_rate`.
    """

    sources = registry.SPEECH_SOURCES
    examples = "'vctk' or the embedded 'speech'"
    files = "train/<speaker>/*.wav"
    suffixes = (*SUFFIXES, PHONES_SUFFIX)

    sample_rate: Annotated[int, ">= 4000", "<= 48000"] = 16_000
    crop_samples: Annotated[int, ">= 1", "<= 16777216"] = 7680

    @property
    def placeholders(self) -> dict[str, Any]:
        """The names of the speakers, which the opened data decide."""
        return {"speaker_names": ("",)}
