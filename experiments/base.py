"""What the experiments share: configs of defaults with a few keys changed.

An experiment file lists its variants and makes `get_config` of them:

    from vqvae_jax.experiments import base

    PAPER = {"data.name": "cifar10", "model.quantizer.num_codebooks": 10}
    EMA = {"model.quantizer.codebook_update": "ema"}
    VARIANTS = {
        "": base.Variant("vqvae", "prior", PAPER),
        "ema": base.Variant("vqvae", "prior", PAPER | EMA),
    }
    get_config = base.variants(__file__, VARIANTS)

The options' dataclasses hold the defaults; `docs/config.md` lists every key.
"""

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from vqvae_jax.experiment import default_config, with_kinds
from vqvae_jax.options import flatten


@dataclasses.dataclass(frozen=True)
class Variant:
    """A config of defaults with keys changed.

    Attributes:
      kind: a row of `registry.MODELS`.
      second_stage: a row of `registry.SECOND_STAGES`; None for none.
      changes: value of each dotted key that differs from its default.
    """

    kind: str
    second_stage: str | None = None
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def config(self) -> ConfigDict:
        """Return the whole config.

        Raises:
          ValueError: the config has no such key.
          TypeError: a value does not have its default's type.
        """
        default = default_config(self.kind, self.second_stage)
        default = with_kinds(default, self.changes)
        keys = flatten(default)
        for key in self.changes:
            if key not in keys:
                close = difflib.get_close_matches(key, keys, n=1)
                suggestion = f", did you mean {close[0]}?" if close else ""
                raise ValueError(f"{key} is not a key of the config{suggestion}")
        config = ConfigDict(default)
        config.update_from_flattened_dict(self.changes)
        return config


def variants(file: str, configs: Mapping[str, Any]) -> Callable[..., ConfigDict]:
    """Return the `get_config` of an experiment file.

    Args:
      file: its path.
      configs: a `Variant` for each name, "" for the default; a suite of runs has nested
        mappings with `Variant`s in them.
    """
    path = f"experiments/{Path(file).name}"

    def get_config(variant: str = "") -> ConfigDict:
        """Return the config of a variant."""
        if variant not in configs:
            names = ", ".join(filter(None, configs))
            there_are = f"; there are {names}" if names else ""
            raise ValueError(f"{path} has no variant {variant!r}{there_are}")
        return ConfigDict(_resolved(configs[variant]))

    return get_config


def change(*sections: str, **options: Any) -> dict[str, Any]:
    """Return changes that set the same options in each section."""
    return {
        f"{section}.{name}": value
        for section in sections
        for name, value in options.items()
    }


def autoencoder(**options: Any) -> dict[str, Any]:
    """Return changes that set the same options of an image encoder and decoder."""
    return change("model.encoder", "model.decoder", **options)


def _resolved(config: Any) -> Any:
    if isinstance(config, Variant):
        return config.config()
    if isinstance(config, Mapping):
        return {name: _resolved(value) for name, value in config.items()}
    return config
