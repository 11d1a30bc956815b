"""From an experiment's ConfigDict to frozen dataclasses that have checked themselves.

A typo, a wrong type or an impossible size is told here, naming the key, before any data
is opened and any array is made.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from vqvae_jax.errors import UserError, require

T = TypeVar("T")


def section(cls: type[T], values: Mapping[str, Any], *, name: str, **given: Any) -> T:
    """Make the dataclass `cls` of the section `name` of a config.

    Args:
      cls: a dataclass whose `__post_init__` raises UserError with a message that starts
        with the field's name.
      values: the section.
      name: put before the field's name in messages.
      **given: fields that the config does not set.

    Raises:
      UserError: a key is unknown, missing or of the wrong type, or `cls` refuses it.
    """
    fields = {f.name: f for f in dataclasses.fields(cls) if f.name not in given}
    unknown = sorted(set(values) - set(fields))
    require(
        not unknown,
        f"{name}.{unknown[0] if unknown else ''} is not an option; there are "
        f"{', '.join(sorted(fields))}",
    )
    for key, field in fields.items():
        if key in values:
            _require_type(f"{name}.{key}", values[key], field.type)
        else:
            require(
                field.default is not dataclasses.MISSING,
                f"{name}.{key} is missing from the config",
            )
    try:
        return cls(**values, **given)
    except UserError as error:
        raise UserError(f"{name}.{error}") from error


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return {"a.b": value} for nested mappings, tuples as lists as JSON has them."""
    flat = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = list(value) if isinstance(value, tuple) else value
    return flat


def _require_type(key: str, value: Any, expected: Any) -> None:
    if expected not in (int, float, bool, str):
        return
    accepted = (int, float) if expected is float else (expected,)
    is_right = isinstance(value, accepted)
    if isinstance(value, bool) and expected is not bool:
        is_right = False
    require(is_right, f"{key} must be of type {expected.__name__}, got {value!r}")
