"""The 8×8 handwritten digits of scikit-learn as a TFDS set, without a download."""

from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Float, UInt8


def to_uint8(values: Float[np.ndarray, "*n"]) -> UInt8[np.ndarray, "*n"]:
    """Map 0..16 to 0..255; `round(result * 16 / 255)` is the exact inverse."""
    return np.round(values * (255 / 16)).astype(np.uint8)


class Digits(tfds.core.GeneratorBasedBuilder):
    """1 797 grey images [8, 8, 1] of ten classes; about a fifth are the test split.

    Images are a Tensor feature rather than an Image, because TFDS writes the latter
    with TensorFlow.
    """

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            description="Optical recognition of handwritten digits, 8×8, UCI.",
            homepage="https://archive.ics.uci.edu/dataset/80",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Tensor(shape=(8, 8, 1), dtype=np.uint8),
                    "label": tfds.features.ClassLabel(names=[*"0123456789"]),
                }
            ),
            supervised_keys=("image", "label"),
        )

    def _split_generators(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, Iterator[tuple[int, dict]]]:
        del dl_manager
        return {
            "train": self._generate_examples(test=False),
            "test": self._generate_examples(test=True),
        }

    def _generate_examples(self, *, test: bool) -> Iterator[tuple[int, dict]]:
        from sklearn.datasets import load_digits

        bunch = load_digits()
        seen = np.zeros(10, int)
        for index, (image, label) in enumerate(
            zip(to_uint8(bunch.images), bunch.target, strict=True)
        ):
            # Every fifth image of each class, so that class ratios are equal.
            if (seen[label] % 5 == 4) == test:
                yield index, {"image": image[..., None], "label": int(label)}
            seen[label] += 1
