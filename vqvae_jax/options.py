"""Options: frozen dataclasses that declare each option once, with default and bounds.

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Prior:
        grid: Annotated[tuple[int, int, int], GIVEN]
        network: PixelCNN = PixelCNN()
        label_dropout: Annotated[float, ">= 0", "< 1"] = 0.0

        def __post_init__(self):
            options.check(self)

`check` enforces the annotations, `build` makes such a dataclass from a section of a
config, `to_config` goes back, and `describe` lists every key for the reference page. A
field that is a dataclass itself is a section inside the section. Flax modules are
dataclasses too, and are nested like any other.
"""

import dataclasses
import difflib
import functools
import math
import operator
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

from vqvae_jax.runtime.errors import UserError, require

T = TypeVar("T")

# The dtypes that networks compute in.
DType = Literal["float32", "bfloat16"]

# Marks a field that data or codes decide: no config sets it.
GIVEN = "given by the data"
ODD = "odd"

# Sizes and counts are int32 in many places.
_MAX_INT = 2**31 - 1
_MAX_SHOWN = 60
_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_PLAIN = (bool, float, int, str)
# Fields of every Flax module.
_OF_MODULES = ("parent", "name")


@dataclasses.dataclass(frozen=True)
class OneOf:
    """Marks a field that holds one of several dataclasses, which the key `kind` names.

    Attributes:
      members: the dataclass of each name.
    """

    members: Mapping[str, type]

    def __hash__(self):
        return hash(tuple(self.members))

    def name(self, options: Any) -> str:
        """Return the name of the dataclass that `options` is an instance of."""
        return next(name for name, cls in self.members.items() if type(options) is cls)


class Field(NamedTuple):
    """A field of an options dataclass.

    Attributes:
      name: of the field.
      type: without its annotations.
      bounds: such as ">= 1", or "odd".
      is_given: whether data decide it, not a config.
      one_of: the choice of dataclasses; None where there is none.
      default: `dataclasses.MISSING` where there is none.
    """

    name: str
    type: Any
    bounds: tuple[str, ...]
    is_given: bool
    one_of: OneOf | None
    default: Any


@functools.cache
def fields(cls: type) -> tuple[Field, ...]:
    """Return the fields of an options dataclass, those of a Flax module's own left out.

    Raises:
      TypeError: `cls` is not a dataclass.
    """
    is_module = hasattr(cls, "apply")
    found = []
    for field in dataclasses.fields(cls):
        if is_module and field.name in _OF_MODULES:
            continue
        inner, notes = field.type, ()
        if typing.get_origin(inner) is Annotated:
            inner, *notes = typing.get_args(inner)
        found.append(
            Field(
                field.name,
                inner,
                tuple(n for n in notes if isinstance(n, str) and n != GIVEN),
                GIVEN in notes,
                next((note for note in notes if isinstance(note, OneOf)), None),
                field.default,
            )
        )
    return tuple(found)


def check(options: Any, *, prefix: str = "") -> None:
    """Raise UserError, naming the field, where a value is outside of its annotation.

    Sections inside are checked too.
    """
    for field in fields(type(options)):
        name, value = prefix + field.name, getattr(options, field.name)
        if _is_section(value):
            check(value, prefix=f"{name}.")
            continue
        if typing.get_origin(field.type) is Literal:
            require_choice(name, value, typing.get_args(field.type))
        if field.bounds and value is not None:
            require(
                all(_is_within(value, bound) for bound in field.bounds),
                f"{name} must be {' and '.join(field.bounds)}, got {shown(value)}",
            )


def build(
    cls: type[T], values: Any, *, name: str, base: T | None = None, **given: Any
) -> T:
    """Make an options dataclass from a section of a config.

    Args:
      cls: the dataclass; its `__post_init__` raises UserError with a message that
        starts with the field's name.
      values: the section, a mapping if it is right.
      name: of the section, for messages.
      base: where values of missing keys are taken from; by default, the fields'
        defaults.
      **given: values of the fields marked `GIVEN`; surplus ones are ignored.

    Raises:
      UserError: a key is unknown, missing, or of the wrong type, or `cls` rejects it.
    """
    require_section(values, name=name)
    options = {field.name: field for field in fields(cls) if not field.is_given}
    for key in values:
        require(
            key in options,
            f"{name}.{shown(key)[1:-1]} is not an option{_suggestion(key, cls)}; "
            f"there are {', '.join(sorted(options))}",
        )
    made = {}
    for field in fields(cls):
        if field.is_given and field.name in given:
            value = made[field.name] = given[field.name]
            if field.type in _PLAIN or typing.get_origin(field.type) is tuple:
                _require_type(f"{name}.{field.name}", value, field.type)
            else:
                require(
                    value is None or hasattr(value, "shape"),
                    f"{name}.{field.name} must be an array, got {shown(value)}",
                )
    for key, field in options.items():
        if key in values:
            made[key] = _value(field, values[key], name=f"{name}.{key}", base=base)
        elif base is not None:
            made[key] = getattr(base, key)
        else:
            require(
                field.default is not dataclasses.MISSING,
                f"{name}.{key} is missing from the config",
            )
    try:
        built = cls(**made)
        # Of classes that do not check themselves, such as Flax modules.
        check(built)
    except UserError as error:
        raise UserError(f"{name}.{error}") from error
    return built


def to_config(options: Any) -> dict[str, Any]:
    """Return the section of a config that `build` makes these options of."""
    return _section(type(options), lambda field: getattr(options, field.name))


def defaults(cls: type) -> dict[str, Any]:
    """Return the section of a config that holds every default of a dataclass."""
    return _section(cls, lambda field: field.default)


def with_kind(
    cls: type, section: Mapping[str, Any], path: Sequence[str], kind: str, *, name: str
) -> dict[str, Any]:
    """Return a section in which the section at `path` holds another dataclass.

    Its keys are those of the other dataclass, with its defaults. A key of the same name
    and type, such as `dim`, keeps a value that is not the default of the first one.

    Args:
      cls: the dataclass of `section`.
      section: of a config.
      path: of the section to change, inside this one.
      kind: the name of the dataclass in its `OneOf`.
      name: of the section, for messages.

    Raises:
      UserError: the choice has no such kind, or the section at `path` has no choice.
    """
    first, *rest = path
    field = next((each for each in fields(cls) if each.name == first), None)
    value = section.get(first)
    has_choice = field is not None and field.one_of is not None and bool(value)
    if rest:
        require(isinstance(value, Mapping), f"there is no section {name}.{first}")
        inner = (
            field.one_of.members[value["kind"]] if has_choice else type(field.default)
        )
        changed = with_kind(inner, value, rest, kind, name=f"{name}.{first}")
        return {**section, first: changed}
    require(has_choice, f"{name}.{first}.kind is not an option")
    require_choice(f"{name}.{first}.kind", kind, field.one_of.members)
    if kind == value["kind"]:
        return dict(section)
    made = defaults(field.one_of.members[kind])
    before = defaults(field.one_of.members[value["kind"]])
    kept = {
        key: old
        for key, old in value.items()
        if old != before.get(key)
        and type(old) is type(made.get(key))
        and not isinstance(old, Mapping)
    }
    return {**section, first: {"kind": kind} | made | kept}


class Key(NamedTuple):
    """A key of a config.

    Attributes:
      name: with the sections it is in, as "model.encoder.channels".
      field: of the dataclass that owns it.
      owner: that dataclass.
      default: the key's value in this section.
    """

    name: str
    field: Field
    owner: type
    default: Any


def describe(
    cls: type,
    *,
    prefix: str,
    base: Any = None,
    inside: Sequence[Mapping[str, type]] = (),
) -> Iterator[Key]:
    """Yield each key of a section.

    A dataclass may hold another one of the choice that it belongs to. There only the
    default's keys follow the key `kind`, since the list of all keys would have no end.

    Args:
      cls: the section's dataclass.
      prefix: of the keys' names, as "model.".
      base: an instance that has the defaults; by default, the fields' own.
      inside: the choices of dataclasses that `cls` belongs to.
    """
    for field in fields(cls):
        if field.is_given:
            continue
        name = prefix + field.name
        default = field.default if base is None else getattr(base, field.name)
        if not _is_section(default):
            yield Key(name, field, cls, default)
            continue
        members = {} if field.one_of is None else field.one_of.members
        within = (*inside, members) if members else inside
        section = {"prefix": f"{name}.", "inside": within}
        if members:
            yield _kind_key(f"{name}.kind", field.one_of, default)
        yield from describe(type(default), base=default, **section)
        if any(members is outer for outer in inside):
            continue
        for member in members.values():
            if member is not type(default):
                yield from describe(member, **section)


def as_dict(options: Any) -> dict[str, Any]:
    """Return all options as JSON values, those that data decide as `given`.

    Arrays, which only initialise parameters, are left out.
    """
    names = (field.name for field in fields(type(options)) if field.is_given)
    given = {name: getattr(options, name) for name in names}
    given = {k: v for k, v in given.items() if not hasattr(v, "dtype")}
    return to_config(options) | {"given": given}


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
    """Return a value as a message shows it, cut to a bounded length."""
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


def _kind_key(name: str, one_of: OneOf, default: Any) -> Key:
    """Return the key that names which of several dataclasses a section holds."""
    kind, choices = one_of.name(default), Literal[tuple(one_of.members)]
    field = Field("kind", choices, (), False, one_of, kind)
    return Key(name, field, type(default), kind)


def _section(cls: type, value_of: Callable[[Field], Any]) -> dict[str, Any]:
    """Return a section with a value for each field, where there is one."""
    section = {}
    for field in fields(cls):
        value = value_of(field)
        if field.is_given or value is dataclasses.MISSING:
            continue
        if _is_section(value):
            kind = {} if field.one_of is None else {"kind": field.one_of.name(value)}
            value = kind | to_config(value)
        section[field.name] = value
    return section


def _is_section(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _is_within(value: Any, bound: str) -> bool:
    if bound == ODD:
        return value % 2 == 1
    comparison, limit = bound.split()
    return _COMPARISONS[comparison](value, float(limit.replace("_", "")))


def _suggestion(key: Any, cls: type) -> str:
    """Return a suggestion for an unknown key: in a section inside, or a similar one."""
    inside = [each.name for each in describe(cls, prefix="") if "." in each.name]
    found = dict.fromkeys(name for name in inside if name.rpartition(".")[2] == key)
    depth = min((name.count(".") for name in found), default=0)
    close = [name for name in found if name.count(".") == depth]
    if not close:
        names = [field.name for field in fields(cls) if not field.is_given]
        close = difflib.get_close_matches(str(key), names, n=1)
    return f", did you mean {' or '.join(close)}?" if close else ""


def _value(field: Field, value: Any, *, name: str, base: Any) -> Any:
    """Return the value of a field: checked, or built where it is a section."""
    default = field.default if base is None else getattr(base, field.name)
    if not _is_section(default):
        _require_type(name, value, field.type)
        return tuple(value) if isinstance(value, list) else value
    require_section(value, name=name)
    if field.one_of is None:
        return build(type(default), value, name=name, base=default)
    members = field.one_of.members
    rest = dict(value)
    kind = rest.pop("kind", field.one_of.name(default))
    require_choice(f"{name}.kind", kind, members)
    same = default if members[kind] is type(default) else None
    return build(members[kind], rest, name=name, base=same)


def _require_type(key: str, value: Any, expected: Any) -> None:
    if typing.get_origin(expected) is Literal:
        require_choice(key, value, typing.get_args(expected))
        return
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


def require_choice(key: str, value: Any, choices: Iterable[Any]) -> None:
    """Raise UserError, naming a key, unless its value is one of the choices."""
    require(
        # True == 1 and 3.0 == 3.
        any(type(value) is type(each) and value == each for each in choices),
        f"{key} must be one of {', '.join(map(str, choices))}, got {shown(value)}",
    )


def _require_tuple(key: str, values: Any, expected: tuple[Any, ...]) -> None:
    """Check each of `values`: as many as types are expected, or any of (type, ...)."""
    each, *rest = expected
    number = None if rest == [...] else len(expected)
    is_right = isinstance(values, tuple | list) and number in (None, len(values))
    many = "a list" if number is None else f"{number}"
    require(is_right, f"{key} must be {many} of {each.__name__}, got {shown(values)}")
    for value in values:
        _require_type(key, value, each)
