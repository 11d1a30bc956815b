"""The trained model of a command: whether it supports the command, and `info`."""

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from vqvae_jax import registry
from vqvae_jax.models import base
from vqvae_jax.pretrained.card import summary
from vqvae_jax.pretrained.loading import TrainedModel, find, require_same_codes
from vqvae_jax.pretrained.metadata import Metadata
from vqvae_jax.registry import ModelSpec
from vqvae_jax.runtime.checksums import sha256_of_tree
from vqvae_jax.runtime.errors import require
from vqvae_jax.runtime.terminal import print_table


class Loaded(NamedTuple):
    """A trained model.

    Attributes:
      source: what the command was given.
      found: the model there.
      params: its parameters.
    """

    source: str
    found: TrainedModel
    params: Any

    @property
    def metadata(self) -> Metadata:
        """The model's metadata."""
        return self.found.metadata

    @property
    def model(self) -> Any:
        """The model without its arrays."""
        return self.metadata.model

    @property
    def spec(self) -> ModelSpec:
        """The model's row of the registry."""
        return registry.MODELS[self.metadata.kind]

    @property
    def fingerprint(self) -> str:
        """A hash of the arrays that determine the codes."""
        return base.fingerprint(self.model, self.params)

    @property
    def digest(self) -> str:
        """A hash of all arrays, the decoder's too."""
        return sha256_of_tree(self.params)

    @property
    def sample_rate(self) -> int:
        """Samples of audio per second.

        Raises:
          UserError: it is unknown.
        """
        rate = self.metadata.sample_rate
        require(
            rate is not None,
            "the model's sample rate is unknown: pass sample_rate to save_pretrained",
        )
        return rate


def info(options: argparse.Namespace) -> None:
    """Print a summary of a model and its results, as a table or as JSON."""
    metadata = find(options.model).metadata
    lines = summary(metadata)
    if options.json:
        print(json.dumps({**lines, "results": dict(metadata.results)}, indent=2))
        return
    print_table(lines)
    if metadata.results:
        print()
        print_results(metadata.results)


def print_results(results: Mapping[str, float]) -> None:
    """Print results as a table."""
    print_table({name: f"{value:.5g}" for name, value in results.items()})


def load(source: str, command: str) -> Loaded:
    """Load the model of a command.

    Raises:
      UserError: there is none, or its kind does not support the command.
    """
    found = find(source)
    kind = found.metadata.kind
    kinds = [k for k, spec in registry.MODELS.items() if command in spec.commands]
    require(
        command in registry.MODELS[kind].commands,
        f"{command} needs a model of kind {' or '.join(kinds)}, and {source} is a "
        f"{kind}",
    )
    return Loaded(source, found, found.params(kind))


def load_prior(loaded: Loaded, stage: str) -> tuple[Any, Any]:
    """Load the prior over a model's codes.

    Raises:
      UserError: the model has none, it is not trained yet, or it was trained on the
        codes of another model.
    """
    metadata, source = loaded.metadata, loaded.source
    require(
        stage in metadata.models,
        f"{source} has no {stage} yet: train it first"
        if metadata.second_stage == stage
        else f"{source} has no {stage}: it is followed by "
        f"{metadata.second_stage or 'nothing'}",
    )
    require_same_codes(loaded.found, loaded.fingerprint, source=source)
    return metadata.models[stage], loaded.found.params(stage)


def label_of(class_names: Sequence[str], name: str) -> int:
    """Return the label of a class.

    Raises:
      UserError: the prior has no such class.
    """
    require(
        name in class_names,
        f"--label={name}: the prior has the classes {listed(class_names)}"
        if class_names
        else f"--label={name}: the prior was trained without classes",
    )
    return class_names.index(name)


def listed(names: Sequence[str]) -> str:
    """Return the first names, as a message shows them."""
    return ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
