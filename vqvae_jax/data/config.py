"""The `data` section of an experiment's config."""

import dataclasses

from vqvae_jax.runtime.errors import require

# Of images that networks can be trained on: a larger one is a mistake.
_MAX_SIZE = 4096
MAX_WORKERS = 1024


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Say which images to read and how to shape them.

    Attributes:
        source: "tfds" for a TensorFlow Datasets set, "folder" for image files.
        name: a TFDS name such as "cifar10", or the embedded "digits". Unused for
            a folder.
        data_dir: where TFDS keeps its sets ("" for TFDS_DATA_DIR or the library's
            default), or the folder's root.
        image_size: side of the square images. Others are resized so that their
            shorter side fits, and centre-cropped.
        channels: 1 for grey, 3 for RGB; images are converted.
        random_flip: flip training images left to right at random.
        validation_fraction: part of train that becomes the validation split, where
            the set brings none of its own.
        skip_corrupt: skip image files that cannot be decoded instead of refusing
            the folder.
        num_workers: processes that decode training images; 0 decodes in threads.

    Raises:
        UserError: a value is impossible; the message names its key.
    """

    source: str
    image_size: int
    channels: int
    name: str = ""
    data_dir: str = ""
    random_flip: bool = False
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
            "name is empty; with data.source='tfds' give the set's name, "
            "such as 'cifar10' or the embedded 'digits'",
        )
        require(
            self.source == "tfds" or self.data_dir != "",
            "data_dir is empty; with data.source='folder' give the folder "
            "that holds train/<class>/*.jpg",
        )
        require(
            1 <= self.image_size <= _MAX_SIZE,
            f"image_size is {self.image_size}; expected 1 to {_MAX_SIZE}",
        )
        require(
            self.channels in (1, 3),
            f"channels is {self.channels}; expected 1 (grey) or 3 (RGB)",
        )
        require(
            0.0 < self.validation_fraction < 0.5,
            f"validation_fraction is {self.validation_fraction}; expected "
            "more than 0 and less than 0.5",
        )
        require(
            0 <= self.num_workers <= MAX_WORKERS,
            f"num_workers is {self.num_workers}; expected 0 (threads) to {MAX_WORKERS}",
        )
