"""The `data` section of a speech experiment's config."""

import dataclasses
from typing import Annotated, Any

from vqvae_jax import options, registry
from vqvae_jax.data.config import require_source

SUFFIXES = (".wav", ".flac")
PHONES_SUFFIX = ".tsv"


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpeechDataConfig:
    """Options of a set of speech: which recordings to read and how to crop them.

    Attributes:
      source: "tfds" for a TensorFlow Datasets set, "folder" for sound files.
      name: TFDS name such as "vctk" or "librispeech", or the embedded "speech". Unused
        for a folder.
      data_dir: root of the folder, or directory of prepared TFDS sets ("" for
        TFDS_DATA_DIR or the library's default).
      sample_rate: in Hz; recordings of another rate are resampled.
      crop_samples: length of a training example, at `sample_rate`.
      validation_fraction: fraction of train that becomes the validation split if the
        set has none.
      skip_corrupt: skip files that cannot be read instead of raising.
      num_workers: processes that read training crops; 0 reads in threads.

    Raises:
      UserError: a value is invalid; the message names its key.
    """

    source: str = "tfds"
    name: str = ""
    data_dir: str = ""
    sample_rate: Annotated[int, ">= 4000", "<= 48000"] = 16_000
    crop_samples: Annotated[int, ">= 1", "<= 16777216"] = 7680
    validation_fraction: Annotated[float, "> 0", "< 0.5"] = 0.05
    skip_corrupt: bool = False
    num_workers: Annotated[int, ">= 0", "<= 1024"] = 0

    def __post_init__(self) -> None:
        """Check every option; UserError names the first wrong one."""
        options.check(self)
        require_source(
            self,
            registry.SPEECH_SOURCES,
            examples="'vctk' or the embedded 'speech'",
            files="train/<speaker>/*.wav",
        )

    @property
    def given(self) -> dict[str, Any]:
        """Options of models that this section decides."""
        return {}

    @property
    def placeholders(self) -> dict[str, Any]:
        """Stand-ins for options of models that only the opened data decide."""
        return {"speaker_names": ("",)}

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Suffixes of a folder's files."""
        return *SUFFIXES, PHONES_SUFFIX
