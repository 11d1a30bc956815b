"""The metadata of a trained model: kinds, options and results, as JSON."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from vqvae_jax import options, registry
from vqvae_jax.models.base import abstract_params, fingerprint, second_models
from vqvae_jax.options import shown
from vqvae_jax.runtime.errors import UserError, require
from vqvae_jax.runtime.safe_io import is_number

# Raised for JSON that `to_json` did not write.
_DAMAGE = (
    ArithmeticError,
    AttributeError,
    KeyError,
    RecursionError,
    TypeError,
    ValueError,
)


class Metadata(NamedTuple):
    """The metadata of a trained model and of its second stage.

    Attributes:
      kind: a row of `registry.MODELS`, and the stage that trained the model.
      model: of that kind.
      second_stage: a row of `registry.SECOND_STAGES`; None without one.
      models: trained models of the second stage, by their stages.
      codes_of: fingerprint of the model whose codes the second stage was trained on.
      sample_rate: Hz of speech; None for images, or if unknown.
      config: of the run; None without one.
      results: of the run; empty before its evaluation.
    """

    kind: str
    model: Any
    second_stage: str | None = None
    models: Mapping[str, Any] = {}
    codes_of: str | None = None
    sample_rate: int | None = None
    config: Mapping[str, Any] | None = None
    results: Mapping[str, float] = {}

    def abstract_params(self, stage: str) -> Any:
        """Return the shapes and dtypes of the parameters of a stage."""
        model = self.model if stage == self.kind else self.models[stage]
        return abstract_params(model)


def to_json(metadata: Metadata) -> str:
    """Return the text that `from_json` reads."""
    base = metadata.models.get(metadata.second_stage)
    values = metadata._asdict() | {
        "model": options.as_dict(metadata.model),
        "models": list(metadata.models),
        "second_options": None if base is None else options.as_dict(base),
    }
    return json.dumps(values)


def from_json(text: str) -> Metadata:
    """Return the metadata that `to_json` wrote.

    Raises:
      UserError: the text is damaged, or names an unknown kind or option.
    """
    try:
        values = json.loads(text)
        second_options = values.pop("second_options")
        kind, second, stages = (
            values[key] for key in ("kind", "second_stage", "models")
        )
        _require_known(kind, registry.MODELS)
        section, given = _split(values["model"])
        cls = registry.load(registry.MODELS[kind].model)
        values["model"] = options.build(cls, section, name=kind, **given)
        values["models"] = {}
        if second_options is not None:
            _require_known(second, registry.SECOND_STAGES)
            models = second_models(second, *_split(second_options))
            values["models"] = {stage: models[stage] for stage in stages}
        metadata = Metadata(**values)
        _require_types(metadata)
        return metadata
    except UserError:
        raise
    except _DAMAGE as error:
        raise UserError(f"its metadata are damaged: {error}") from error


def metadata_of(*pairs: Any) -> tuple[Metadata, dict[str, Any]]:
    """Return the metadata and the parameters of models of a training loop.

    Args:
      *pairs: model and params, then those of a second stage if there is one.

    Raises:
      UserError: they are not models of this package.
    """
    require(
        len(pairs) in (2, 4),
        f"expected (model, params) or (model, params, prior, prior_params), got "
        f"{len(pairs)} values",
    )
    kind = _name_of(registry.MODELS, pairs[0])
    params = {kind: pairs[1]}
    if len(pairs) == 2:
        return Metadata(kind, pairs[0]), params
    second = _name_of(registry.SECOND_STAGES, pairs[2])
    codes_of = fingerprint(*pairs[:2])
    metadata = Metadata(kind, pairs[0], second, {second: pairs[2]}, codes_of)
    return metadata, params | {second: pairs[3]}


def _require_types(metadata: Metadata) -> None:
    """Raise TypeError if a metadata field has the wrong type."""
    config, rate = metadata.config, metadata.sample_rate
    second = metadata.second_stage
    for name, is_right in (
        ("second_stage", second is None or second in registry.SECOND_STAGES),
        ("codes_of", isinstance(metadata.codes_of, str | None)),
        ("sample_rate", rate is None or (type(rate) is int and 0 < rate < 2**31)),
        ("config", config is None or isinstance(config.get("data", {}), dict)),
        ("results", all(is_number(x) for x in metadata.results.values())),
    ):
        if not is_right:
            raise TypeError(f"{name} cannot be {shown(getattr(metadata, name))}")


def _name_of(rows: Mapping[str, Any], model: Any) -> str:
    """Return the row whose class a model is an instance of."""
    name = type(model).__name__
    path = f"{type(model).__module__}:{name}"
    found = [row for row, spec in rows.items() if spec.model == path]
    classes = ", ".join(spec.model.partition(":")[2] for spec in rows.values())
    require(bool(found), f"expected a model, one of {classes}; got {name}")
    return found[0]


def _require_known(name: Any, rows: Mapping[str, Any]) -> None:
    require(
        isinstance(name, str) and name in rows,
        f"it contains the unknown model {name!r}: it is damaged or of a newer version",
    )


def _split(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the section of a config and the given options of a model."""
    section = dict(values)
    given = section.pop("given")
    return section, {
        k: tuple(v) if isinstance(v, list) else v for k, v in given.items()
    }
