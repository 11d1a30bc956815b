"""The trained model that a command is given, and whether it can do what is asked."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from vqvae_jax.models.first import KINDS
from vqvae_jax.pretrained.file import hash_of
from vqvae_jax.pretrained.loading import Place, find
from vqvae_jax.pretrained.metadata import About
from vqvae_jax.runtime.errors import require
from vqvae_jax.workdir import fingerprint

# These have codes.
CODING = ("vqvae", "speech")


class Loaded(NamedTuple):
    """A trained model.

    place: where it was found.
    about: what it is.
    params: its arrays.
    """

    place: Place
    about: About
    params: Any

    @property
    def model(self) -> Any:
        """The model without its arrays."""
        return self.about.model

    @property
    def fingerprint(self) -> str:
        """A hash of what decides the codes of a model that has some."""
        return fingerprint(self.params)

    @property
    def digest(self) -> str:
        """A hash of all arrays: of a model that decodes, its decoder's too."""
        return digest_of(self.params)


def load(place: str, command: str, *, kinds: Sequence[str] = tuple(KINDS)) -> Loaded:
    """Load a model of one of some kinds.

    Raises:
      UserError: there is none, or it is of another kind.
    """
    found = find(place)
    about = found.about
    require(
        about.kind in kinds,
        f"{command} needs a model of kind {' or '.join(kinds)}, and {place} is a "
        f"{about.kind}",
    )
    return Loaded(found, about, found.params(about.kind))


def digest_of(params: Any) -> str:
    """Return a short hash of all arrays of a model."""
    return hash_of(params)[:16]


def prior_of(loaded: Loaded, stage: str, place: str) -> tuple[Any, Any]:
    """Load the prior over a model's codes.

    Raises:
      UserError: the model has none, it is not trained yet, or it belongs to the codes
        of another model.
    """
    about = loaded.about
    require(
        stage in about.models,
        f"{place} has no {stage} yet: train it first"
        if about.second == stage
        else f"{place} has no {stage}: it is followed by {about.second or 'nothing'}",
    )
    ours = loaded.fingerprint
    require(
        about.codes_of == ours,
        f"the {stage} in {place} was trained on the codes of another model "
        f"({about.codes_of}, now {ours}): train it again",
    )
    return about.models[stage], loaded.place.params(stage)


def speaker_of(loaded: Loaded, name: str | None) -> int:
    """Return the number of a speaker of a model of speech.

    Raises:
      UserError: nobody is named, or nobody of train.
    """
    names = loaded.model.speaker_names
    known = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
    require(name is not None, f"--speaker is missing: one of {known}")
    require(name in names, f"--speaker={name}: there are {known}")
    return names.index(name)


def rate_of(loaded: Loaded) -> int:
    """Return the samples a second of a model of speech; UserError if nobody knows."""
    rate = loaded.about.sample_rate
    require(
        rate is not None,
        "the model does not say its sample rate: give it to save_pretrained as "
        "sample_rate",
    )
    return rate


def label_of(class_names: Sequence[str], name: str) -> int:
    """Return the number of a class; UserError if the prior does not know it."""
    known = ", ".join(class_names[:10]) + (", ..." if len(class_names) > 10 else "")
    require(
        name in class_names,
        f"--label={name}: the prior knows the classes {known}"
        if class_names
        else f"--label={name}: the prior was trained without classes",
    )
    return class_names.index(name)
