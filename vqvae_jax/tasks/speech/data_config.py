"""The `data` section of a speech experiment's config."""

import dataclasses

from vqvae_jax.data.config import MAX_WORKERS
from vqvae_jax.runtime.errors import require

# Minutes of sound: a longer crop is a mistake.
_MAX_CROP = 2**24


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpeechDataConfig:
    """Say which recordings to read and how to cut them.

    Attributes:
      source: "tfds" for a TensorFlow Datasets set, "folder" for sound files.
      crop_samples: length of a training example, at `sample_rate`.
      name: a TFDS name such as "vctk" or "librispeech", or the embedded "speech".
        Unused for a folder.
      data_dir: where TFDS keeps its sets ("" for TFDS_DATA_DIR or the library's
        default), or the folder's root.
      sample_rate: in Hz; recordings of another rate are resampled.
      validation_fraction: part of train that becomes the validation split, where the
        set brings none of its own.
      skip_corrupt: skip files that cannot be used instead of refusing the folder.
      num_workers: processes that read training crops; 0 reads in threads.

    Raises:
      UserError: a value is impossible; the message names its key.
    """

    source: str
    crop_samples: int
    name: str = ""
    data_dir: str = ""
    sample_rate: int = 16_000
    validation_fraction: float = 0.05
    skip_corrupt: bool = False
    num_workers: int = 0

    def __post_init__(self) -> None:
        """Check every option, so that a mistake is told before any data is read."""
        require(
            self.source in ("tfds", "folder"),
            f"source is {self.source!r}; expected 'tfds' or 'folder'",
        )
        require(
            self.source == "folder" or self.name != "",
            "name is empty; with data.source='tfds' give the set's name, such as "
            "'vctk' or the embedded 'speech'",
        )
        require(
            self.source == "tfds" or self.data_dir != "",
            "data_dir is empty; with data.source='folder' give the folder that holds "
            "train/<speaker>/*.wav",
        )
        require(
            1 <= self.crop_samples <= _MAX_CROP,
            f"crop_samples is {self.crop_samples}; expected 1 to {_MAX_CROP}",
        )
        require(
            4_000 <= self.sample_rate <= 48_000,
            f"sample_rate is {self.sample_rate}; expected 4000 to 48000 Hz",
        )
        require(
            0.0 < self.validation_fraction < 0.5,
            f"validation_fraction is {self.validation_fraction}; expected more than 0 "
            "and less than 0.5",
        )
        require(
            0 <= self.num_workers <= MAX_WORKERS,
            f"num_workers is {self.num_workers}; expected 0 (threads) to {MAX_WORKERS}",
        )
