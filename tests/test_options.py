"""Sections of a config: each mistake is told with its key."""

import dataclasses

import pytest

from vqvae_jax import options
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
    brand: str = "given by the code"

    def __post_init__(self):
        require(self.heat < 300, f"heat must be below 300, got {self.heat}")


def make(**values):
    return options.section(Oven, values, name="oven", brand="x")


def test_values_and_defaults():
    assert make(heat=200) == Oven(heat=200, brand="x")
    every = {"heat": 5, "hours": 2.5, "name": "a", "fan": True, "trays": (2, 3)}
    every |= {"size": (1, 2.5), "clock": "noon"}
    assert make(**every) == Oven(**every, brand="x")
    # A whole number is a fine float.
    assert make(heat=1, hours=3).hours == 3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "oven.heat is missing"),
        ({"heat": 1, "haet": 2}, "oven.haet is not an option; there are clock, fan, "),
        ({"heat": 1, "brand": "y"}, "oven.brand is not an option"),
        ({"heat": 300}, "oven.heat must be below 300, got 300"),
        ({"heat": 1.5}, "oven.heat must be of type int, got 1.5"),
        ({"heat": "1"}, "oven.heat must be of type int, got '1'"),
        ({"heat": True}, "oven.heat must be of type int, got True"),
        ({"heat": None}, "oven.heat must be of type int, got None"),
        ({"heat": 1, "hours": "2"}, "oven.hours must be of type float, got '2'"),
        ({"heat": 1, "hours": False}, "oven.hours must be of type float, got False"),
        ({"heat": 1, "name": 3}, "oven.name must be of type str, got 3"),
        ({"heat": 1, "fan": 1}, "oven.fan must be of type bool, got 1"),
        ({"heat": 1, "trays": 2}, "oven.trays must be a list of int, got 2"),
        ({"heat": 1, "trays": (2, "3")}, "oven.trays must be of type int, got '3'"),
        ({"heat": 1, "size": (1.0,)}, "oven.size must be 2 of float, got (1.0,)"),
        ({"heat": 1, "size": (1, None)}, "oven.size must be of type float, got None"),
        ({"heat": 1, "clock": 3}, "oven.clock must be of type str | None, got 3"),
    ],
)
def test_mistakes_name_their_key(values, message):
    with pytest.raises(UserError) as error:
        make(**values)
    assert str(error.value).startswith(message)


def test_flatten():
    nested = {"a": {"b": {"c": 1}, "d": (2, 3)}, "e": "x", "f": {}}
    assert options.flatten(nested) == {"a.b.c": 1, "a.d": [2, 3], "e": "x"}
