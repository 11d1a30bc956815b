"""Data: images and speech, of TFDS and folders, as resumable batches of NumPy."""

from vqvae_jax.data.batches import TrainBatches, eval_batches, train_batches
from vqvae_jax.data.config import DataConfig
from vqvae_jax.data.dataset import Dataset, open_dataset
from vqvae_jax.data.source import (
    Batch,
    Example,
    Source,
    first_examples,
)
from vqvae_jax.tasks.speech.data_config import SpeechDataConfig
from vqvae_jax.tasks.speech.dataset import SpeechDataset, open_speech
from vqvae_jax.tasks.speech.utterances import Crop, Utterances, utterance_batches

__all__ = [
    "Batch",
    "Crop",
    "DataConfig",
    "Dataset",
    "Example",
    "Source",
    "SpeechDataConfig",
    "SpeechDataset",
    "TrainBatches",
    "Utterances",
    "eval_batches",
    "first_examples",
    "open_dataset",
    "open_speech",
    "train_batches",
    "utterance_batches",
]
