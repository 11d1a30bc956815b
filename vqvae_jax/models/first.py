"""What `model.kind` may be: models of data itself, one row of a table each."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vqvae_jax.models.gan import GAN
from vqvae_jax.models.pixelcnn import PixelModel
from vqvae_jax.models.second import training_section
from vqvae_jax.models.vae import VAE
from vqvae_jax.models.vimco import VIMCO
from vqvae_jax.models.vqvae import VQVAE
from vqvae_jax.runtime.errors import require
from vqvae_jax.tasks.speech.model import SpeechVQVAE

Shapes = Mapping[str, jax.ShapeDtypeStruct]


class Kind(NamedTuple):
    """A kind of model.

    model: the dataclass of its options.
    batch: the shapes of a batch that a model can be initialised with.
    second: what may follow it, of `models.second.SECOND_STAGES`.
    needs_second: whether one of them must.
    """

    model: type
    batch: Callable[[Any], Shapes]
    second: tuple[str, ...] = ()
    needs_second: bool = False


def batch_of_images(model: Any) -> Shapes:
    """Return the shapes of a batch of one image."""
    return {
        "image": jax.ShapeDtypeStruct((1, *model.image_shape), jnp.uint8),
        "label": jax.ShapeDtypeStruct((1,), jnp.int32),
        "mask": jax.ShapeDtypeStruct((1,), bool),
    }


def batch_of_speech(model: SpeechVQVAE) -> Shapes:
    """Return the shapes of a batch of one short utterance."""
    samples = 4 * model.downsampling
    return {
        "audio": jax.ShapeDtypeStruct((1, samples), jnp.int16),
        "mask": jax.ShapeDtypeStruct((1, samples), bool),
        "speaker": jax.ShapeDtypeStruct((1,), jnp.int32),
    }


KINDS: dict[str, Kind] = {
    "vqvae": Kind(VQVAE, batch_of_images, ("prior", "hierarchy", "video"), True),
    "vae": Kind(VAE, batch_of_images),
    "vimco": Kind(VIMCO, batch_of_images),
    "pixelcnn": Kind(PixelModel, batch_of_images),
    "gan": Kind(GAN, batch_of_images),
    "speech": Kind(SpeechVQVAE, batch_of_speech, ("sequence_prior",)),
}


def second_of(kind: str, config: Mapping[str, Any]) -> str | None:
    """Return the one second stage whose sections a config has; None if it has none.

    Raises:
      UserError: there are the sections of two, or none where the kind needs one.
    """
    row = KINDS[kind]
    present = [
        name
        for name in row.second
        if name in config or training_section(name) in config
    ]
    choices = f"a {kind} is followed by exactly one of: " + ", ".join(
        f"{name} with {training_section(name)}" for name in row.second
    )
    if row.needs_second:
        require(bool(present), f"{row.second[0]} is missing from the config; {choices}")
    require(
        len(present) < 2, f"{' and '.join(present)} are both in the config; {choices}"
    )
    return present[0] if present else None
