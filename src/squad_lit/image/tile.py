"""Where the tiles of a large image lie, and how much each counts where they overlap; NumPy alone."""

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

AT_ONCE = 8
"""Tiles that go through a model together, which bounds its memory for images of any size."""

Window = tuple[slice, slice]


class Grid:
    """Equal tiles, spread evenly over an image, and weights that blend their maps without a seam.

    The weight of a tile falls as a squared sine from its middle to its sides, where the model sees least of what
    surrounds a pixel. The weights of all tiles at a pixel sum to 1, so that a map on which all tiles agree stays
    unchanged.

    Args:
        size: Height and width of the image.
        side: Side of the tiles in pixels, at most that of the image; None: a single tile, the whole image.
        overlap: Smallest share of a side that neighbours have in common, in [0, 1).

    Example:
        >>> [columns.start for _, columns in Grid((64, 160), 64, 0.25).windows]
        [0, 48, 96]
    """

    def __init__(self, size: Sequence[int], side: int | None = None, overlap: float = 0.0) -> None:
        self.size = size[0], size[1]
        self.tile = (side, side) if side else self.size
        starts = [_starts(length, part, overlap) for length, part in zip(self.size, self.tile, strict=True)]
        corners = itertools.product(*starts)
        height, width = self.tile
        self.windows: list[Window] = [(slice(r, r + height), slice(c, c + width)) for r, c in corners]
        self._weights = [
            _axis_weights(length, part, at) for length, part, at in zip(self.size, self.tile, starts, strict=True)
        ]

    def __len__(self) -> int:
        return len(self.windows)

    def weight(self, number: int) -> NDArray[np.float32]:
        """The weight of a tile at each of its pixels, ``(height, width)``, above 0."""
        rows, columns = self._weights
        row, column = divmod(number, len(columns))
        return rows[row][:, None] * columns[column]

    def draw(self, rng: np.random.Generator) -> Window:
        """Draw a window of a tile's size anywhere in the image."""
        row, column = (int(rng.integers(n - part + 1)) for n, part in zip(self.size, self.tile, strict=True))
        return slice(row, row + self.tile[0]), slice(column, column + self.tile[1])


def _starts(length: int, side: int, overlap: float) -> list[int]:
    """The first pixels of tiles along an axis: as few tiles as overlap enough, with one at each end."""
    if side > length:
        raise ValueError(f"a tile of {side} px does not fit into an image of {length} px")
    step = max(1, int(side * (1 - overlap) + 1e-9))  # 100 * (1 - 0.9) is 9.999999999999998
    gaps = -(-(length - side) // step)
    return [i * (length - side) // gaps for i in range(gaps + 1)] if gaps else [0]


def _axis_weights(length: int, side: int, starts: Sequence[int]) -> list[NDArray[np.float32]]:
    """The weights of each tile along an axis, ``(side,)``; those at one pixel sum to 1."""
    window = np.sin(np.pi * (np.arange(side) + 0.5) / side) ** 2
    total = np.zeros(length)
    for start in starts:
        total[start : start + side] += window
    return [(window / total[start : start + side]).astype(np.float32) for start in starts]
