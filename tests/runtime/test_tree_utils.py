"""Shapes of pytrees, and the report of differences from the expected shapes."""

from typing import NamedTuple

import numpy as np
import pytest

from vqvae_jax.runtime.errors import UserError
from vqvae_jax.runtime.tree_utils import require_same_shapes, shapes_of


class Pair(NamedTuple):
    w: np.ndarray
    rest: tuple


def test_paths_are_the_same_for_structs_and_for_dicts():
    """On disk a struct becomes a dict, and a tuple a list."""
    table, scalar = np.zeros((2, 3)), np.zeros(())
    in_memory = {"net": Pair(table, ({}, scalar, None))}
    on_disk = {"net": {"w": table, "rest": [{}, scalar, None]}}
    expected = {"net/w": (2, 3), "net/rest/1": ()}
    assert shapes_of(in_memory) == shapes_of(on_disk) == expected


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (
            {"a/w": (1, 5, 64), "b": (3,)},
            r"a/w has shape \(1, 5, 64\) in the checkpoint, expected \(1, 4, 64\): the",
        ),
        ({"a/w": (1, 4, 64)}, r"b of shape \(3,\) is missing in the checkpoint: the"),
        (
            {"a/w": (1, 4, 64), "b": (3,), "c": (7,)},
            r"c of shape \(7,\) in the checkpoint is not expected: the",
        ),
        (
            {"a/w": (1, 5, 64), "c": (7,)},
            r"a/w has shape .*, expected \(1, 4, 64\), and 2 more differ: the",
        ),
    ],
)
def test_the_first_difference_is_reported(stored, message):
    expected = {"a/w": (1, 4, 64), "b": (3,)}
    with pytest.raises(UserError, match=f"^runs/x: {message} model's sizes differ"):
        require_same_shapes(stored, expected, where="runs/x")
    require_same_shapes(expected, dict(reversed(expected.items())), where="runs/x")
