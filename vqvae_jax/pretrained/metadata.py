"""What a trained model is besides its arrays: kinds, options, figures, as JSON."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from vqvae_jax.models.base import require_buildable
from vqvae_jax.models.first import KINDS
from vqvae_jax.models.second import SECOND_STAGES
from vqvae_jax.options import section, shown
from vqvae_jax.runtime.errors import UserError, require
from vqvae_jax.workdir import fingerprint

# Stage -> its model, without arrays.
Models = dict[str, Any]


class About(NamedTuple):
    """All that is known of a trained model and of what follows it.

    kind: a name of `models.first.KINDS`, and of the stage that trained the model.
    model: of that kind.
    second: what follows, a name of `models.second.SECOND_STAGES`; None for nothing.
    models: of the second stage, those that have been trained, by their stages.
    codes_of: fingerprint of the model that the second stage's codes came from.
    sample_rate: Hz of speech; None for images, or if nobody said it.
    config: of the run; None without one.
    results: of the run, empty before it was evaluated.
    """

    kind: str
    model: Any
    second: str | None = None
    models: Mapping[str, Any] = {}
    codes_of: str | None = None
    sample_rate: int | None = None
    config: Mapping[str, Any] | None = None
    results: Mapping[str, float] = {}


def to_json(about: About) -> str:
    """Return the text that `from_json` reads."""
    base = about.models.get(about.second)
    values = about._asdict() | {
        "model": _options(about.model),
        "models": list(about.models),
        "second_options": None if base is None else _options(base),
    }
    return json.dumps(values)


def from_json(text: str) -> About:
    """Return what `to_json` made a text of.

    Raises:
      UserError: it is none, or has a kind or an option that this version has not.
    """
    try:
        values = json.loads(text)
        options = values.pop("second_options")
        kind, second, stages = (values[key] for key in ("kind", "second", "models"))
        values["model"] = _model(KINDS, kind, values["model"])
        values["models"] = {}
        if options is not None:
            base, make = _model(SECOND_STAGES, second, options), SECOND_STAGES[second]
            values["models"] = {stage: make.trained[stage](base) for stage in stages}
        about = About(**values)
        _require_plain(about)
        return about
    except UserError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise UserError(f"what it says of its model is damaged: {error}") from error


def about_models(*pairs: Any) -> tuple[About, dict[str, Any]]:
    """Return what model, params, second model, second params are, and the params.

    Raises:
      UserError: they are not models of this package.
    """
    require(
        len(pairs) in (2, 4),
        f"expected (model, params) or (model, params, prior, prior_params), got "
        f"{len(pairs)} things",
    )
    kind = _name_of(KINDS, pairs[0])
    params = {kind: pairs[1]}
    if len(pairs) == 2:
        return About(kind, pairs[0]), params
    second = _name_of(SECOND_STAGES, pairs[2])
    codes_of = fingerprint(pairs[1])
    about = About(kind, pairs[0], second, {second: pairs[2]}, codes_of)
    return about, params | {second: pairs[3]}


def _require_plain(about: About) -> None:
    """Raise TypeError unless what is no model is of the types that `About` tells."""
    config, rate = about.config, about.sample_rate
    for name, is_right in (
        ("second", about.second is None or about.second in SECOND_STAGES),
        ("codes_of", isinstance(about.codes_of, str | None)),
        ("sample_rate", rate is None or (type(rate) is int and 0 < rate < 2**31)),
        ("config", config is None or isinstance(config.get("data", {}), dict)),
        ("results", all(_is_number(x) for x in about.results.values())),
    ):
        if not is_right:
            raise TypeError(f"{name} cannot be {shown(getattr(about, name))}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _name_of(rows: Mapping[str, Any], model: Any) -> str:
    found = [name for name, row in rows.items() if type(model) is row.model]
    classes = ", ".join(row.model.__name__ for row in rows.values())
    require(
        bool(found), f"expected a model, one of {classes}; got {type(model).__name__}"
    )
    return found[0]


def _model(
    rows: Mapping[str, Any], name: str | None, options: Mapping[str, Any]
) -> Any:
    require(name in rows, f"it is a {name!r}, which this version does not know")
    # JSON has lists where models want tuples.
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
    return section(rows[name].model, given, name=name, check=require_buildable)


def _options(model: Any) -> dict[str, Any]:
    """Return the options of a model; arrays that it only starts from are left out."""
    values = {f.name: getattr(model, f.name) for f in dataclasses.fields(model)}
    return {name: value for name, value in values.items() if not _is_array(value)}


def _is_array(value: Any) -> bool:
    return hasattr(value, "dtype")
