"""Grids of any size as windows of the size that a prior models.

Windows lie side by side in raster order, without overlap. Those at the right and lower
edge reach beyond the grid: their codes there are 0, and are not coded.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

# Sides of an image, in pixels.
Size = tuple[int, int]


class Windows(NamedTuple):
    """How images are divided.

    Attributes:
      grid: shape `(H, W, C)` of a window.
      stride: pixels of a cell's side.
      runs: number of successive images of one size, and the size in pixels.
    """

    grid: tuple[int, int, int]
    stride: int
    runs: tuple[tuple[int, Size], ...]

    @classmethod
    def of(
        cls, sizes: Sequence[Size], *, grid: tuple[int, int, int], stride: int
    ) -> "Windows":
        """Return the windows of images of these sizes in pixels."""
        runs = ((len(list(run)), size) for size, run in itertools.groupby(sizes))
        return cls(grid, stride, tuple(runs))

    @property
    def sizes(self) -> Iterator[Size]:
        """The size of each image in pixels."""
        for count, size in self.runs:
            yield from itertools.repeat(size, count)

    @property
    def num_images(self) -> int:
        """Number of images."""
        return sum(count for count, _ in self.runs)

    @property
    def num_windows(self) -> int:
        """Number of windows of all images."""
        return sum(n * math.prod(self._tiles(size)) for n, size in self.runs)

    @property
    def num_codes(self) -> int:
        """Number of codes of all images."""
        per_cell = self.grid[2]
        return sum(n * math.prod(self.cells(size)) * per_cell for n, size in self.runs)

    def cells(self, size: Size) -> tuple[int, int]:
        """Return the sides of the grid of an image."""
        height, width = (-(-side // self.stride) for side in size)
        return height, width

    def windows_of(self, size: Size) -> int:
        """Return the number of windows of an image."""
        return math.prod(self._tiles(size))

    def masks(self) -> Iterator[Bool[np.ndarray, "H W"]]:
        """Yield for each window which of its cells are coded, one window at a time."""
        high, wide, _ = self.grid
        rows, columns = np.arange(high)[:, None], np.arange(wide)
        for size in self.sizes:
            height, width = self.cells(size)
            for down, right in np.ndindex(*self._tiles(size)):
                yield (rows < height - down * high) & (columns < width - right * wide)

    def split(
        self, codes: Sequence[Int[np.ndarray, "_ _ C"]]
    ) -> Int[np.ndarray, "n H W C"]:
        """Return the windows of the grids of all images."""
        return np.concatenate([self._split(grid) for grid in codes])

    def join(
        self, windows: Int[np.ndarray, "n H W C"]
    ) -> list[Int[np.ndarray, "_ _ C"]]:
        """Return the grid of each image."""
        high, wide, per_cell = self.grid
        grids, start = [], 0
        for size in self.sizes:
            down, right = self._tiles(size)
            tiles = windows[start : start + down * right]
            start += down * right
            whole = tiles.reshape(down, right, high, wide, per_cell).swapaxes(1, 2)
            height, width = self.cells(size)
            whole = whole.reshape(down * high, right * wide, per_cell)
            grids.append(whole[:height, :width])
        return grids

    def _split(self, codes: Int[np.ndarray, "_ _ C"]) -> Int[np.ndarray, "n H W C"]:
        high, wide, per_cell = self.grid
        height, width, _ = codes.shape
        down, right = -(-height // high), -(-width // wide)
        padding = (0, down * high - height), (0, right * wide - width), (0, 0)
        padded = np.pad(codes, padding).reshape(down, high, right, wide, per_cell)
        return padded.swapaxes(1, 2).reshape(-1, high, wide, per_cell)

    def _tiles(self, size: Size) -> tuple[int, int]:
        height, width = self.cells(size)
        return -(-height // self.grid[0]), -(-width // self.grid[1])
