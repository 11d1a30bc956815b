"""The `data` section of an experiment's config."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from vqvae_jax import options, registry
from vqvae_jax.runtime.errors import require

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Options of a set of images: which images to read and how to shape them.

    Attributes:
        source: "tfds" for a TensorFlow Datasets set, "folder" for image files.
        name: TFDS name such as "cifar10", or the embedded "digits". Unused for a
            folder.
        data_dir: root of the folder, or directory of prepared TFDS sets ("" for
            TFDS_DATA_DIR or the library's default).
        image_size: side of the square images. Others are resized so that their
            shorter side fits, and centre-cropped.
        channels: 1 for grey, 3 for RGB; images are converted.
        random_flip: flip training images left to right at random.
        validation_fraction: fraction of train that becomes the validation split if
            the set has none.
        skip_corrupt: skip image files that cannot be decoded instead of raising.
        num_workers: number of processes that decode training images; 0 decodes in
            threads.

    Raises:
        UserError: a value is invalid; the message names its key.
    """

    source: str = "tfds"
    name: str = ""
    data_dir: str = ""
    image_size: Annotated[int, ">= 1", "<= 4096"] = 32
    channels: Literal[1, 3] = 3
    random_flip: bool = False
    validation_fraction: Annotated[float, "> 0", "< 0.5"] = 0.05
    skip_corrupt: bool = False
    num_workers: Annotated[int, ">= 0", "<= 1024"] = 0

    def __post_init__(self) -> None:
        """Check every option; UserError names the first wrong one."""
        options.check(self)
        require_source(
            self,
            registry.IMAGE_SOURCES,
            examples="'cifar10' or the embedded 'digits'",
            files="train/<class>/*.jpg",
        )

    @property
    def given(self) -> dict[str, Any]:
        """Options of models that this section decides."""
        return {"image_shape": (self.image_size, self.image_size, self.channels)}

    @property
    def placeholders(self) -> dict[str, Any]:
        """Stand-ins for options of models that only the opened data decide."""
        return {}

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Suffixes of a folder's files."""
        return SUFFIXES


def require_source(
    config: Any, sources: Mapping[str, str], *, examples: str, files: str
) -> None:
    """Raise UserError unless a `data` section names a source, and a set or a folder."""
    require(
        config.source in sources,
        f"source must be one of {', '.join(sources)}, got {config.source!r}",
    )
    require(
        config.source == "folder" or config.name != "",
        "name is empty; with data.source='tfds' give the set's name, such as "
        f"{examples}",
    )
    require(
        config.source != "folder" or config.data_dir != "",
        "data_dir is empty; with data.source='folder' give the folder that holds "
        f"{files}",
    )
