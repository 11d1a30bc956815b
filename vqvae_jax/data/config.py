"""The `data` section of an experiment's config."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from vqvae_jax import options, registry
from vqvae_jax.runtime.errors import require

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """Options of any set: where its examples are and how to read them.

    Attributes:
        source: "tfds" for a TensorFlow Datasets set, "folder" for files.
        name: TFDS name. Unused for a folder.
        data_dir: root of the folder, or directory of prepared TFDS sets ("" for
            TFDS_DATA_DIR or the library's default).
        validation_fraction: fraction of train that becomes the validation split if
            the set has none.
        skip_corrupt: skip files that cannot be read instead of raising.
        num_workers: number of processes that read training examples; 0 reads in
            threads.

    Class attributes:
        sources: rows of the registry that `source` may name.
        examples: of `name`, for messages.
        files: of a folder, for messages.
        suffixes: of a folder's files.

    Raises:
        UserError: a value is invalid; the message names its key.
    """

    sources: ClassVar[Mapping[str, str]]
    examples: ClassVar[str]
    files: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]

    source: str = "tfds"
    name: str = ""
    data_dir: str = ""
    validation_fraction: Annotated[float, "> 0", "< 0.5"] = 0.05
    skip_corrupt: bool = False
    num_workers: Annotated[int, ">= 0", "<= 1024"] = 0

    def __post_init__(self) -> None:
        """Check every option; UserError names the first wrong one."""
        options.check(self)
        require(
            self.source in self.sources,
            f"source must be one of {', '.join(self.sources)}, got {self.source!r}",
        )
        require(
            self.source == "folder" or self.name != "",
            "name is empty; with data.source='tfds' give the set's name, such as "
            f"{self.examples}",
        )
        require(
            self.source != "folder" or self.data_dir != "",
            "data_dir is empty; with data.source='folder' give the folder that holds "
            f"{self.files}",
        )

    @property
    def given(self) -> dict[str, Any]:
        """Options of models that this section decides."""
        return {}

    @property
    def placeholders(self) -> dict[str, Any]:
        """Stand-ins for options of models that only the opened data decide."""
        return {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig(SourceConfig):
    """Options of a set of images: which images to read and how to shape them.

    Attributes:
        name: TFDS name such as "cifar10", or the embedded "digits". Unused for a
            folder.
        image_size: side of the square images. Others are resized so that their
            shorter side fits, and centre-cropped.
        channels: 1 for grey, 3 for RGB; images are converted.
        random_flip: flip training images left to right at random.
    """

    sources = registry.IMAGE_SOURCES
    examples = "'cifar10' or the embedded 'digits'"
    files = "train/<class>/*.jpg"
    suffixes = SUFFIXES

    image_size: Annotated[int, ">= 1", "<= 4096"] = 32
    channels: Literal[1, 3] = 3
    random_flip: bool = False

    @property
    def given(self) -> dict[str, Any]:
        """The shape of an image."""
        return {"image_shape": (self.image_size, self.image_size, self.channels)}
