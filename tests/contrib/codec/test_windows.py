"""Grids of any size as windows, against loops."""

import numpy as np
import pytest

from vqvae_jax.contrib.codec.windows import Windows

GRID, STRIDE = (3, 2, 2), 4
# In pixels: less than a window, one cell, whole windows, and parts of windows.
SIZES = [(12, 8), (12, 8), (1, 1), (24, 24), (13, 9), (5, 40), (5, 40)]


def make(sizes=SIZES):
    return Windows.of(sizes, grid=GRID, stride=STRIDE)


def cells(size):
    return tuple(-(-side // STRIDE) for side in size)


def draw(sizes=SIZES):
    rng = np.random.default_rng(0)
    return [rng.integers(1, 9, size=(*cells(size), 2)) for size in sizes]


def test_successive_images_of_one_size_are_a_run():
    assert make().runs == (
        (2, (12, 8)),
        (1, (1, 1)),
        (1, (24, 24)),
        (1, (13, 9)),
        (2, (5, 40)),
    )
    assert list(make().sizes) == SIZES


def test_windows_lie_side_by_side_and_are_zero_outside():
    codes = draw()
    windows, masks = make().split(codes), list(make().masks())
    number = 0
    for grid in codes:
        for top in range(0, grid.shape[0], 3):
            for left in range(0, grid.shape[1], 2):
                for row, column in np.ndindex(3, 2):
                    inside = top + row < grid.shape[0] and left + column < grid.shape[1]
                    assert masks[number][row, column] == inside
                    expected = grid[top + row, left + column] if inside else 0
                    np.testing.assert_array_equal(
                        windows[number, row, column], expected
                    )
                number += 1
    assert number == len(windows) == len(masks) == make().num_windows
    assert sum(grid.size for grid in codes) == make().num_codes


@pytest.mark.parametrize("sizes", [SIZES, SIZES[:1], [(100, 3)]])
def test_join_is_the_inverse_of_split(sizes):
    codes = draw(sizes)
    joined = make(sizes).join(make(sizes).split(codes))
    assert len(joined) == len(codes)
    for found, expected in zip(joined, codes, strict=True):
        np.testing.assert_array_equal(found, expected)
