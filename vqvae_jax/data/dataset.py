"""Open a set of images with its three splits."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from vqvae_jax.data import folder, tfds
from vqvae_jax.data.config import DataConfig
from vqvae_jax.data.source import (
    Source,
    Subset,
    cached,
    permutation,
)
from vqvae_jax.runtime.errors import require


class Dataset(NamedTuple):
    """Three splits whose examples share no image.

    Example i of a split is `{"image": uint8 [H, W, C], "label": int32 []}`; frames of a
    world have `COLUMNS`, int32 [], besides.

    Attributes:
        train: the source to train on.
        validation: what models are chosen by; cut from train if the set has none.
        test: what results are reported on.
        class_names: one name per label, or empty where images have no labels (all
            labels are then 0).
        image_shape: (H, W, C).
        action_names: what the actions of frames mean; empty for other images.
    """

    train: Source
    validation: Source
    test: Source
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    action_names: tuple[str, ...] = ()


def open_dataset(config: DataConfig) -> Dataset:
    """Open the set that `config` names; prepare it first where TFDS must.

    Whatever the set does not bring is cut from train, always the same examples:
    a set with a test but no validation split gives `validation_fraction` of train to
    validation and keeps its test split whole. A set with a validation but no test
    split (ImageNet, most folders) has its validation split serve as test, and again
    validation is cut from train. A set with train alone gives that fraction twice.

    Raises:
        UserError: the set cannot be found, prepared or read, or is too small.
    """
    if config.source == "folder":
        splits = folder.open_folder(
            config.data_dir,
            image_size=config.image_size,
            channels=config.channels,
            skip_corrupt=config.skip_corrupt,
        )
    else:
        splits = tfds.open_tfds(
            config.name,
            data_dir=config.data_dir,
            image_size=config.image_size,
            channels=config.channels,
        )
    sources = {role: cached(source) for role, source in splits.sources.items()}
    train, validation, test = three_splits(sources, config.validation_fraction)
    return Dataset(
        train=train,
        validation=validation,
        test=test,
        class_names=splits.class_names,
        image_shape=(config.image_size, config.image_size, config.channels),
        action_names=splits.action_names,
    )


def three_splits(
    sources: Mapping[str, Source],
    fraction: float,
    *,
    subset: Callable[[Source, Int[np.ndarray, " n"]], Source] = Subset,
) -> tuple[Source, Source, Source]:
    """Return train, validation and test; cut what is missing as `open_dataset` says.

    Args:
        sources: by role, "train" at least.
        fraction: of train that a missing split gets.
        subset: makes a source of another one and indices.

    Raises:
        UserError: train is too small.
    """
    train = sources["train"]
    validation, test = sources.get("validation"), sources.get("test")
    if test is None:
        validation, test = None, validation
    if validation is not None:
        return train, validation, test

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
    return subset(train, np.sort(order[parts * size :])), validation, test
