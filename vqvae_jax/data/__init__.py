"""Images from TFDS and folders as resumable batches of NumPy arrays."""

from vqvae_jax.data.batches import TrainBatches, eval_batches
from vqvae_jax.data.config import DataConfig
from vqvae_jax.data.dataset import Dataset, open_dataset
from vqvae_jax.data.source import (
    Batch,
    Example,
    Source,
    first_examples,
)

__all__ = [
    "Batch",
    "DataConfig",
    "Dataset",
    "Example",
    "Source",
    "TrainBatches",
    "eval_batches",
    "first_examples",
    "open_dataset",
]
