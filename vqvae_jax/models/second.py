"""What may follow a VQ-VAE: models of its codes, one row of a table each.

The rooms below have tables with the same names: `stages.second` says how a row's models
are trained, sampled from, measured and shown.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vqvae_jax.models.base import require_buildable
from vqvae_jax.models.prior import Prior
from vqvae_jax.options import section
from vqvae_jax.tasks.hierarchy.model import Hierarchy
from vqvae_jax.tasks.hierarchy.vae import HierarchyVAE
from vqvae_jax.tasks.speech.prior import SequencePrior
from vqvae_jax.tasks.video.model import Video

Facts = Mapping[str, Any]


class SecondStage(NamedTuple):
    """A second stage, named as the section of a config that holds its options.

    model: the dataclass of those options.
    given: its fields that the codes decide, by their names in the codes' metadata.
    trained: the models to train, by the names of their stages, each made of `model`.
    batch: the shapes of a batch that a model can be initialised with.
    """

    model: type
    given: tuple[str, ...]
    trained: Mapping[str, Callable[[Any], Any]]
    batch: Callable[[Any], Mapping[str, jax.ShapeDtypeStruct]]


def batch_of_codes(model: Any) -> dict[str, jax.ShapeDtypeStruct]:
    """Return the shapes of a batch of one grid of codes."""
    return {
        "codes": jax.ShapeDtypeStruct((1, *model.grid), jnp.int32),
        "label": jax.ShapeDtypeStruct((1,), jnp.int32),
        "mask": jax.ShapeDtypeStruct((1,), bool),
    }


def batch_of_clips(model: Video) -> dict[str, jax.ShapeDtypeStruct]:
    """Return the shapes of a batch of one clip."""
    frames = model.clip_frames
    return {
        "codes": jax.ShapeDtypeStruct((1, frames, *model.grid), jnp.int32),
        "action": jax.ShapeDtypeStruct((1, frames), jnp.int32),
        "mask": jax.ShapeDtypeStruct((1,), bool),
    }


def batch_of_windows(model: SequencePrior) -> dict[str, jax.ShapeDtypeStruct]:
    """Return the shapes of a batch of one window of an utterance's codes."""
    return {
        "codes": jax.ShapeDtypeStruct((1, model.latents), jnp.int32),
        "mask": jax.ShapeDtypeStruct((1, model.latents), bool),
        "speaker": jax.ShapeDtypeStruct((1,), jnp.int32),
    }


SECOND_STAGES: dict[str, SecondStage] = {
    "prior": SecondStage(
        model=Prior,
        given=("grid", "num_codes", "class_names"),
        trained={"prior": lambda prior: prior},
        batch=batch_of_codes,
    ),
    # The last two are what the first is compared with (section 4.2).
    "hierarchy": SecondStage(
        model=Hierarchy,
        given=("grid", "num_codes"),
        trained={
            "hierarchy": lambda hierarchy: hierarchy,
            "hierarchy_vae": HierarchyVAE.like,
            "hierarchy_without_latents": lambda hierarchy: hierarchy.without_latents,
        },
        batch=batch_of_codes,
    ),
    # The last one is what the first is compared with (section 4.4).
    "video": SecondStage(
        model=Video,
        given=("grid", "num_codes", "action_names"),
        trained={
            "video": lambda video: video,
            "video_frames_alone": lambda video: video.frames_alone,
        },
        batch=batch_of_clips,
    ),
    # Of speech (section 4.3).
    "sequence_prior": SecondStage(
        model=SequencePrior,
        given=("num_codes", "class_names"),
        trained={"sequence_prior": lambda prior: prior},
        batch=batch_of_windows,
    ),
}


def training_section(name: str) -> str:
    """Return the section that says how the models of a second stage are trained."""
    return f"{name}_training"


def models_of(name: str, options: Mapping[str, Any], facts: Facts) -> dict[str, Any]:
    """Build the models of a second stage, by the names of the stages that train them.

    Args:
      name: of a row.
      options: the section of the config with that name.
      facts: the codes' metadata, as a mapping.

    Raises:
      UserError: an option of the section cannot be.
    """
    row = SECOND_STAGES[name]
    # JSON has lists where models want tuples.
    given = {
        key: tuple(facts[key]) if isinstance(facts[key], list) else facts[key]
        for key in row.given
    }
    model = section(row.model, options, name=name, check=require_buildable, **given)
    return {stage: make(model) for stage, make in row.trained.items()}
