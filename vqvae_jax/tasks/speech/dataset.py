"""The `data` section of a speech experiment, and the data set that it names."""

import dataclasses
from typing import Annotated, Any, NamedTuple

from vqvae_jax import options, registry
from vqvae_jax.data.config import require_source
from vqvae_jax.data.dataset import three_splits
from vqvae_jax.tasks.speech import audio, phones
from vqvae_jax.tasks.speech.utterances import Utterances, UtteranceSubset


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
        return *audio.SUFFIXES, phones.SUFFIX


class SpeechDataset(NamedTuple):
    """Three disjoint splits of utterances; see `tasks.speech.utterances`.

    Attributes:
        train: the training split.
        validation: the split for model selection; cut from train if the set has none.
        test: the split that results are reported on.
        speaker_names: one name per speaker of train.
        phone_names: one name per phone; empty if phones are unknown.
        sample_rate: in Hz.
    """

    train: Utterances
    validation: Utterances
    test: Utterances
    speaker_names: tuple[str, ...]
    phone_names: tuple[str, ...]
    sample_rate: int

    @property
    def given(self) -> dict[str, Any]:
        """Options of models that only the opened data decide."""
        return {"speaker_names": self.speaker_names}


def open_speech(config: SpeechDataConfig) -> SpeechDataset:
    """Open the data set named by `config`, preparing it first if TFDS requires it.

    Missing splits are cut from train by utterance, as in `open_dataset`, so that they
    have the speakers of train.

    Raises:
        UserError: if the set cannot be found, prepared or read, or is too small.
    """
    splits = registry.load(registry.SPEECH_SOURCES[config.source])(config)
    train, validation, test = three_splits(
        splits.sources, config.validation_fraction, subset=UtteranceSubset
    )
    return SpeechDataset(
        train=train,
        validation=validation,
        test=test,
        speaker_names=splits.speaker_names,
        phone_names=splits.phone_names,
        sample_rate=config.sample_rate,
    )
