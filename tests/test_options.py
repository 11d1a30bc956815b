"""Options dataclasses: built from sections of a config; each error names its key."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import flax.linen as nn
import pytest

from vqvae_jax import options
from vqvae_jax.options import GIVEN, ODD, OneOf
from vqvae_jax.runtime.errors import UserError, require


@dataclasses.dataclass(frozen=True, kw_only=True)
class Oven:
    heat: int
    hours: float = 1.0
    name: str = "oven"
    fan: bool = False
    trays: tuple[int, ...] = (1,)
    size: tuple[float, float] = (1.0, 2.0)
    clock: str | None = None
    brand: Annotated[str, GIVEN] = "given by the code"

    def __post_init__(self):
        require(self.heat < 300, f"heat must be below 300, got {self.heat}")


class Lamp(nn.Module):
    """A Flax module: a dataclass that does not check itself."""

    watts: Annotated[int, ">= 1", "<= 100"] = 40
    colour: Literal["white", "red"] = "white"
    sockets: Annotated[int, GIVEN] = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gas:
    burners: Annotated[int, ">= 1"] = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Induction:
    fields: Annotated[int, ">= 1"] = 2
    watts: int = 2000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kitchen:
    owner: Annotated[str, GIVEN]
    lamp: Lamp = Lamp(watts=60)
    hob: Annotated[Gas | Induction, OneOf({"gas": Gas, "induction": Induction})] = Gas(
        burners=5
    )
    chairs: Annotated[int, ODD, "> 1"] = 3
    rent: Annotated[float, ">= 0", "< 2_000"] = 0.0

    def __post_init__(self):
        options.check(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Candle:
    hours: int = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Torch:
    hours: float = 0.5
    watts: int = 2


LIGHTS = {"candle": Candle, "torch": Torch}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pair:
    """Holds another one of the choice that it belongs to."""

    watts: int = 1
    left: Annotated[Candle | Torch, OneOf(LIGHTS)] = Torch(watts=3)


LIGHTS["pair"] = Pair


@dataclasses.dataclass(frozen=True, kw_only=True)
class Room:
    light: Annotated[Candle | Torch | Pair, OneOf(LIGHTS)] = Candle(hours=5)
    lamp: Lamp = Lamp()
    chairs: int = 3


def make(**values):
    return options.build(Oven, values, name="oven", brand="x")


def make_kitchen(values, **given):
    return options.build(Kitchen, values, name="kitchen", **({"owner": "x"} | given))


def test_values_and_defaults():
    assert make(heat=200) == Oven(heat=200, brand="x")
    every = {"heat": 5, "hours": 2.5, "name": "a", "fan": True, "trays": (2, 3)}
    every |= {"size": (1, 2.5), "clock": "noon"}
    assert make(**every) == Oven(**every, brand="x")
    # An int is a valid float.
    assert make(heat=1, hours=3).hours == 3
    # JSON has lists instead of tuples.
    assert make(heat=1, trays=[2, 3]).trays == (2, 3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "oven.heat is missing"),
        (
            {"heat": 1, "haet": 2},
            "oven.haet is not an option, did you mean heat?; there are clock, fan, ",
        ),
        ({"heat": 1, "xyz": 2}, "oven.xyz is not an option; there are clock, fan, "),
        ({"heat": 1, "brand": "y"}, "oven.brand is not an option"),
        ({"heat": 300}, "oven.heat must be below 300, got 300"),
        ({"heat": 1.5}, "oven.heat must be of type int, got 1.5"),
        ({"heat": "1"}, "oven.heat must be of type int, got '1'"),
        ({"heat": True}, "oven.heat must be of type int, got True"),
        ({"heat": None}, "oven.heat must be of type int, got None"),
        ({"heat": -(2**31)}, "oven.heat is too large: -2147483648"),
        ({"heat": 1, "hours": "2"}, "oven.hours must be of type float, got '2'"),
        ({"heat": 1, "hours": False}, "oven.hours must be of type float, got False"),
        (
            {"heat": 1, "hours": float("nan")},
            "oven.hours must be a finite number, got nan",
        ),
        ({"heat": 1, "name": 3}, "oven.name must be of type str, got 3"),
        ({"heat": 1, "fan": 1}, "oven.fan must be of type bool, got 1"),
        ({"heat": 1, "trays": 2}, "oven.trays must be a list of int, got 2"),
        ({"heat": 1, "trays": (2, "3")}, "oven.trays must be of type int, got '3'"),
        ({"heat": 1, "size": (1.0,)}, "oven.size must be 2 of float, got (1.0,)"),
        ({"heat": 1, "size": (1, None)}, "oven.size must be of type float, got None"),
        ({"heat": 1, "clock": 3}, "oven.clock must be of type str | None, got 3"),
    ],
)
def test_an_error_names_its_key(values, message):
    with pytest.raises(UserError) as error:
        make(**values)
    assert str(error.value).startswith(message)


class TestSectionsInside:
    def test_missing_keys_have_the_values_of_the_outer_default(self):
        kitchen = make_kitchen({"lamp": {"colour": "red"}, "hob": {}})
        assert kitchen == Kitchen(
            owner="x", lamp=Lamp(watts=60, colour="red"), hob=Gas(burners=5)
        )

    def test_a_kind_chooses_the_dataclass(self):
        kitchen = make_kitchen({"hob": {"kind": "induction", "fields": 3}})
        assert kitchen.hob == Induction(fields=3, watts=2000)
        assert make_kitchen({"hob": {"kind": "gas"}}).hob == Gas(burners=5)

    def test_surplus_given_values_are_ignored(self):
        assert make_kitchen({}, owner="y", street="z") == Kitchen(owner="y")

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"lamp": 3}, "kitchen.lamp must be a section of options, got 3"),
            ({"lamp": {"watts": 0}}, "kitchen.lamp.watts must be >= 1 and <= 100, got"),
            ({"lamp": {"watts": 101}}, "kitchen.lamp.watts must be >= 1 and <= 100"),
            ({"lamp": {"watts": 5.0}}, "kitchen.lamp.watts must be of type int"),
            (
                {"lamp": {"colour": "blue"}},
                "kitchen.lamp.colour must be one of white, red, got 'blue'",
            ),
            ({"lamp": {"colour": 1}}, "kitchen.lamp.colour must be one of white, red"),
            ({"lamp": {"sockets": 2}}, "kitchen.lamp.sockets is not an option"),
            # The fields that every Flax module has.
            ({"lamp": {"name": "x"}}, "kitchen.lamp.name is not an option"),
            ({"lamp": {"parent": 1}}, "kitchen.lamp.parent is not an option"),
            (
                {"lamp": {"wats": 2}},
                "kitchen.lamp.wats is not an option, did you mean watts?; there are "
                "colour, watts",
            ),
            # Keys of the sections inside.
            (
                {"colour": "red"},
                "kitchen.colour is not an option, did you mean lamp.colour?; there are "
                "chairs, hob, lamp, rent",
            ),
            (
                {"watts": 3},
                "kitchen.watts is not an option, did you mean lamp.watts or hob.watts?",
            ),
            ({"hob": {"kind": "wood"}}, "kitchen.hob.kind must be one of gas, indu"),
            ({"hob": {"kind": 1}}, "kitchen.hob.kind must be one of gas, induction"),
            (
                {"hob": {"fields": 2}},
                "kitchen.hob.fields is not an option; there are b",
            ),
            (
                {"hob": {"kind": "induction", "fields": 0}},
                "kitchen.hob.fields must be >= 1, got 0",
            ),
            ({"chairs": 4}, "kitchen.chairs must be odd and > 1, got 4"),
            ({"chairs": 1}, "kitchen.chairs must be odd and > 1, got 1"),
            ({"rent": 2000}, "kitchen.rent must be >= 0 and < 2_000, got 2000"),
        ],
    )
    def test_an_error_names_the_whole_path(self, values, message):
        with pytest.raises(UserError) as error:
            make_kitchen(values)
        assert str(error.value).startswith(message)

    def test_a_direct_construction_is_checked_too(self):
        with pytest.raises(UserError, match=r"^lamp\.watts must be >= 1 and <= 100"):
            Kitchen(owner="x", lamp=Lamp(watts=0))

    def test_to_config_is_the_inverse_of_build(self):
        kitchen = Kitchen(
            owner="x", lamp=Lamp(watts=7), hob=Induction(fields=1), rent=3.5
        )
        section = options.to_config(kitchen)
        assert section == {
            "lamp": {"watts": 7, "colour": "white"},
            "hob": {"kind": "induction", "fields": 1, "watts": 2000},
            "chairs": 3,
            "rent": 3.5,
        }
        assert make_kitchen(section) == kitchen

    def test_defaults_are_the_section_of_an_unchanged_instance(self):
        assert options.defaults(Kitchen) == options.to_config(Kitchen(owner="x"))
        # A field without a default is not in it.
        assert "heat" not in options.defaults(Oven)

    def test_describe_lists_every_key(self):
        keys = list(options.describe(Kitchen, prefix="kitchen."))
        assert {key.name: key.default for key in keys} == {
            "kitchen.lamp.watts": 60,
            "kitchen.lamp.colour": "white",
            "kitchen.hob.kind": "gas",
            "kitchen.hob.burners": 5,
            "kitchen.hob.fields": 2,
            "kitchen.hob.watts": 2000,
            "kitchen.chairs": 3,
            "kitchen.rent": 0.0,
        }
        assert {key.owner for key in keys} == {Kitchen, Lamp, Gas, Induction}
        watts = next(key for key in keys if key.name == "kitchen.lamp.watts")
        assert (watts.field.type, watts.field.bounds) == (int, (">= 1", "<= 100"))


@pytest.mark.parametrize("value", [True, 1.0, "1"])
def test_a_choice_has_the_type_of_its_choices(value):
    @dataclasses.dataclass(frozen=True)
    class Grey:
        channels: Literal[1, 3] = 1

    # Annotated like a config's values: anything may be in one.
    values: Mapping[str, Any] = {"channels": value}
    with pytest.raises(UserError, match=r"^image\.channels must be one of 1, 3, got"):
        options.build(Grey, values, name="image")


def test_what_is_not_a_section_is_refused():
    with pytest.raises(UserError, match=r"^oven must be a section of options, got 3"):
        options.build(Oven, 3, name="oven")


def test_flatten():
    nested = {"a": {"b": {"c": 1}, "d": (2, 3)}, "e": "x", "f": {}}
    assert options.flatten(nested) == {"a.b.c": 1, "a.d": [2, 3], "e": "x"}


class TestWithKind:
    """A section that holds one of several dataclasses gets another one's keys."""

    SECTION = options.to_config(Room(chairs=5))

    def test_keys_of_the_same_type_keep_their_values(self):
        torch = options.with_kind(Room, self.SECTION, ["light"], "torch", name="room")
        # `hours` is an int of a candle and a float here.
        expected = {"kind": "torch", "hours": 0.5, "watts": 2}
        assert torch == self.SECTION | {"light": expected}
        brighter = torch | {"light": expected | {"watts": 7}}
        pair = options.with_kind(Room, brighter, ["light"], "pair", name="room")
        found = options.build(Room, pair, name="room")
        assert found == Room(chairs=5, light=Pair(watts=7, left=Torch(watts=3)))

    def test_the_same_kind_changes_nothing(self):
        same = options.with_kind(Room, self.SECTION, ["light"], "candle", name="room")
        assert same == self.SECTION

    def test_a_section_inside(self):
        pair = options.with_kind(Room, self.SECTION, ["light"], "pair", name="room")
        inside = options.with_kind(Room, pair, ["light", "left"], "candle", name="room")
        left = {"left": {"kind": "candle", "hours": 4}}
        assert inside["light"] == {"kind": "pair", "watts": 1} | left

    @pytest.mark.parametrize(
        ("path", "kind", "message"),
        [
            (
                ["light"],
                "sun",
                "^room.light.kind must be one of candle, torch, pair, got",
            ),
            (["lamp"], "torch", "room.lamp.kind is not an option"),
            (["chairs"], "torch", "room.chairs.kind is not an option"),
            (["chairs", "left"], "torch", "there is no section room.chairs"),
        ],
    )
    def test_wrong_paths_and_kinds(self, path, kind, message):
        with pytest.raises(UserError, match=message):
            options.with_kind(Room, self.SECTION, path, kind, name="room")


def test_keys_of_a_choice_inside_itself_end():
    """Only the default's keys are listed there."""
    names = [key.name for key in options.describe(Room, prefix="")]
    inside = [name for name in names if name.startswith("light.left.")]
    assert inside == [f"light.left.{key}" for key in ("kind", "hours", "watts")]
