"""Open a set of speech with its three splits."""

from typing import NamedTuple

from vqvae_jax.data.dataset import three_splits
from vqvae_jax.tasks.speech.data_config import SpeechDataConfig
from vqvae_jax.tasks.speech.folder import open_speech_folder
from vqvae_jax.tasks.speech.tfds import open_speech_tfds
from vqvae_jax.tasks.speech.utterances import Utterances, UtteranceSubset


class SpeechDataset(NamedTuple):
    """Three splits that share no utterance; see `data.utterances` for what one is.

    Attributes:
        train: the source to train on.
        validation: what models are chosen by; cut from train if the set has none.
        test: what results are reported on.
        speaker_names: one name per speaker of train.
        phone_names: one name per phone, or empty where phones are not known.
        sample_rate: in Hz.
    """

    train: Utterances
    validation: Utterances
    test: Utterances
    speaker_names: tuple[str, ...]
    phone_names: tuple[str, ...]
    sample_rate: int


def open_speech(config: SpeechDataConfig) -> SpeechDataset:
    """Open the set that `config` names; prepare it first where TFDS must.

    Whatever the set does not bring is cut from train as `open_dataset` does, utterance
    by utterance: the cut splits have train's speakers.

    Raises:
        UserError: the set cannot be found, prepared or read, or is too small.
    """
    if config.source == "folder":
        splits = open_speech_folder(
            config.data_dir,
            sample_rate=config.sample_rate,
            skip_corrupt=config.skip_corrupt,
        )
    else:
        splits = open_speech_tfds(
            config.name, data_dir=config.data_dir, sample_rate=config.sample_rate
        )
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
