"""A set of images with three splits."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from vqvae_jax import registry
from vqvae_jax.data.config import DataConfig
from vqvae_jax.data.source import (
    Source,
    Subset,
    cached,
    permutation,
)
from vqvae_jax.runtime.errors import require


class Dataset(NamedTuple):
    """Three disjoint splits.

    An example is `{"image": uint8 [H, W, C], "label": int32 []}`; frames of a world
    also have `FRAME_COLUMNS`, each int32 [].

    Attributes:
        train: the source to train on.
        validation: the source for model selection; cut from train if the set has none.
        test: the source that results are reported on.
        class_names: one name per label; empty if images have no labels, which are
            then all 0.
        image_shape: (H, W, C).
        action_names: one name per action of the frames; empty for other images.
        splits_note: what the splits are, where they are not those of the set.
    """

    train: Source
    validation: Source
    test: Source
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    action_names: tuple[str, ...] = ()
    splits_note: str = ""

    @property
    def given(self) -> dict[str, Any]:
        """Options of models that only the opened data decide."""
        return {}


def open_dataset(config: DataConfig) -> Dataset:
    """Open the set that `config` names; TFDS prepares it first if necessary.

    Missing splits are cut from train, always with the same examples. If a set has a
    test but no validation split, `validation_fraction` of train becomes validation. If
    it has a validation but no test split (ImageNet, most folders), the validation split
    becomes test, and validation is cut from train. If it has train only, validation and
    test are both cut from it, with that fraction each.

    Raises:
        UserError: the set cannot be found, prepared or read, or is too small.
    """
    splits = registry.load(registry.IMAGE_SOURCES[config.source])(config)
    sources = {role: cached(source) for role, source in splits.sources.items()}
    three = three_splits(sources, config.validation_fraction)
    return Dataset(
        train=three.train,
        validation=three.validation,
        test=three.test,
        class_names=splits.class_names,
        image_shape=(config.image_size, config.image_size, config.channels),
        action_names=splits.action_names,
        splits_note=three.note,
    )


class ThreeSplits(NamedTuple):
    """The splits of every set, and a note where they are not those of the set."""

    train: Source
    validation: Source
    test: Source
    note: str = ""


def three_splits(
    sources: Mapping[str, Source],
    fraction: float,
    *,
    subset: Callable[[Source, Int[np.ndarray, " n"]], Source] = Subset,
) -> ThreeSplits:
    """Return train, validation and test; cut missing splits as in `open_dataset`.

    Args:
        sources: sources by role, including "train".
        fraction: fraction of train that a missing split receives.
        subset: makes a source from another source and indices.

    Raises:
        UserError: train is too small.
    """
    train = sources["train"]
    validation, test = sources.get("validation"), sources.get("test")
    if test is not None and validation is not None:
        return ThreeSplits(train, validation, test)
    if test is not None:
        note = "validation is cut from train"
    elif validation is not None:
        note = (
            "there is no test split: the validation split is the test split, and "
            "validation is cut from train"
        )
        validation, test = None, validation
    else:
        note = "validation and test are cut from train"

    size = max(1, round(fraction * len(train)))
    parts = 1 if test is not None else 2
    require(
        len(train) > parts * size,
        f"train has {len(train)} examples, too few to cut {parts} × {size} from "
        "for validation; add some",
    )
    order = permutation(len(train), 0)
    validation = subset(train, np.sort(order[:size]))
    if test is None:
        test = subset(train, np.sort(order[size : 2 * size]))
    rest = subset(train, np.sort(order[parts * size :]))
    return ThreeSplits(rest, validation, test, note)
