"""From an experiment's ConfigDict to frozen dataclasses that have checked themselves.

A typo, a wrong type or an impossible size is told here, naming the key, before any data
is opened and any array is made.
"""

import dataclasses
import math
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from vqvae_jax.runtime.errors import UserError, require

T = TypeVar("T")

# Sizes and counts are int32 in many places below.
_MAX_INT = 2**31 - 1
_MAX_SHOWN = 60


def section(
    cls: type[T],
    values: Any,
    *,
    name: str,
    check: Callable[[T], None] = lambda made: None,
    **given: Any,
) -> T:
    """Make the dataclass `cls` of the section `name` of a config.

    Args:
      cls: a dataclass whose `__post_init__` raises UserError with a message that starts
        with the field's name.
      values: the section, a mapping if it is right.
      name: put before the field's name in messages.
      check: refuses, as `__post_init__` does, what was made.
      **given: fields that the config does not set.

    Raises:
      UserError: a key is unknown, missing or of the wrong type, or `cls` refuses it.
    """
    require_section(values, name=name)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.name not in given}
    unknown = [shown(key)[1:-1] for key in values if key not in fields]
    require(
        not unknown,
        f"{name}.{min(unknown, default='')} is not an option; there are "
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
        made = cls(**values, **given)
        check(made)
    except UserError as error:
        raise UserError(f"{name}.{error}") from error
    return made


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return {"a.b": value} for nested mappings, tuples as lists as JSON has them."""
    flat = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = list(value) if isinstance(value, tuple) else value
    return flat


def require_section(values: Any, *, name: str) -> None:
    """Raise UserError unless a config has a section where one is expected."""
    require(
        isinstance(values, Mapping),
        f"{name} must be a section of options, got {shown(values)}",
    )


def shown(value: Any) -> str:
    """Return a value as a message shows it: not at any length."""
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


def _require_type(key: str, value: Any, expected: Any) -> None:
    if typing.get_origin(expected) is tuple:
        _require_tuple(key, value, typing.get_args(expected))
        return
    if isinstance(expected, types.UnionType):
        is_right = isinstance(value, typing.get_args(expected))
        require(is_right, f"{key} must be of type {expected}, got {shown(value)}")
        return
    accepted = (int, float) if expected is float else (expected,)
    is_right = isinstance(value, accepted)
    if isinstance(value, bool) and expected is not bool:
        is_right = False
    require(is_right, f"{key} must be of type {expected.__name__}, got {shown(value)}")
    if expected is int:
        require(abs(value) <= _MAX_INT, f"{key} is too large: {shown(value)}")
    if expected is float:
        # An int may be too large for a float.
        is_finite = -_MAX_INT <= value <= _MAX_INT and math.isfinite(value)
        require(is_finite, f"{key} must be a finite number, got {shown(value)}")


def _require_tuple(key: str, values: Any, expected: tuple[Any, ...]) -> None:
    """Check each of `values`: as many as types are expected, or any of (type, ...)."""
    each, *rest = expected
    number = None if rest == [...] else len(expected)
    is_right = isinstance(values, tuple | list) and number in (None, len(values))
    many = "a list" if number is None else f"{number}"
    require(is_right, f"{key} must be {many} of {each.__name__}, got {shown(values)}")
    for value in values:
        _require_type(key, value, each)
