"""The `data` section of a speech experiment, and the data set that it names."""

import dataclasses
from typing import Annotated, Any, NamedTuple

from vqvae_jax import registry
from vqvae_jax.data.config import SourceConfig
from vqvae_jax.data.dataset import three_splits
from vqvae_jax.tasks.speech import audio, phones
from vqvae_jax.tasks.speech.utterances import Utterances, UtteranceSubset


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
    suffixes = (*audio.SUFFIXES, phones.SUFFIX)

    sample_rate: Annotated[int, ">= 4000", "<= 48000"] = 16_000
    crop_samples: Annotated[int, ">= 1", "<= 16777216"] = 7680

    @property
    def placeholders(self) -> dict[str, Any]:
        """The names of the speakers, which the opened data decide."""
        return {"speaker_names": ("",)}


class SpeechDataset(NamedTuple):
    """Three disjoint splits of utterances; see `tasks.speech.utterances`.

    Attributes:
        train: the training split.
        validation: the split for model selection; cut from train if the set has none.
        test: the split that results are reported on.
        speaker_names: one name per speaker of train.
        phone_names: one name per phone; empty if phones are unknown.
        sample_rate: in Hz.
        splits_note: what the splits are, where they are not those of the set.
    """

    train: Utterances
    validation: Utterances
    test: Utterances
    speaker_names: tuple[str, ...]
    phone_names: tuple[str, ...]
    sample_rate: int
    splits_note: str = ""

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
    three = three_splits(
        splits.sources, config.validation_fraction, subset=UtteranceSubset
    )
    return SpeechDataset(
        train=three.train,
        validation=three.validation,
        test=three.test,
        speaker_names=splits.speaker_names,
        phone_names=splits.phone_names,
        sample_rate=config.sample_rate,
        splits_note=three.note,
    )
