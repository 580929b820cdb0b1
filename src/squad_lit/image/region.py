"""Connected regions of a mask, with NumPy alone."""

import numpy as np
from numpy.typing import NDArray

Region = tuple[int, int, int, int, int]
"""``(row, column, height, width, area)`` in pixels."""


def connected_runs(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The runs of set pixels in the rows of a mask, and the 8-connected region of each.

    Touching runs of neighbouring rows are joined (union-find).

    Args:
        mask: ``(H, W)``.

    Returns:
        ``(runs, 4)``: row, first column, column after the last, and number of the region from 0, by row and column.

    Example:
        >>> connected_runs(np.array([[1, 0, 1, 1], [0, 0, 0, 1]], bool)).tolist()
        [[0, 0, 1, 0], [0, 2, 4, 1], [1, 3, 4, 1]]
    """
    step = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    row, start = np.nonzero(step == 1)
    stop = np.nonzero(step == -1)[1]  # one past the last pixel, in the order of the starts
    width = mask.shape[1] + 1
    # Runs are sorted by row and column, so those that touch a run in the next row, also by a corner, follow each other.
    first = np.searchsorted(row * width + stop, (row + 1) * width + start)
    last = np.searchsorted(row * width + start, (row + 1) * width + stop, side="right")
    parent = list(range(len(row)))

    def root(run: int) -> int:
        while parent[run] != run:
            parent[run] = parent[parent[run]]
            run = parent[run]
        return run

    for run, (low, high) in enumerate(zip(first.tolist(), last.tolist(), strict=True)):
        for other in range(low, high):
            parent[root(other)] = root(run)
    _, label = np.unique([root(run) for run in parent], return_inverse=True)
    return np.stack([row, start, stop, label], axis=1).astype(np.int64)


def connected_regions(mask: NDArray[np.bool_]) -> list[Region]:
    """The 8-connected regions of a mask, the largest first.

    Args:
        mask: ``(H, W)``.

    Returns:
        The bounding box and area of each region.

    Example:
        >>> connected_regions(np.array([[1, 0, 0, 1], [0, 1, 0, 1]], bool))
        [(0, 0, 2, 2, 2), (0, 3, 2, 1, 2)]
    """
    row, start, stop, label = connected_runs(mask).T
    count = label.max(initial=-1) + 1
    low_corner = np.full((count, 2), max(mask.shape))
    high_corner = np.zeros((count, 2), int)
    np.minimum.at(low_corner, label, np.stack([row, start], 1))
    np.maximum.at(high_corner, label, np.stack([row + 1, stop], 1))
    area = np.bincount(label, stop - start, count).astype(int)
    found = np.concatenate([low_corner, high_corner - low_corner, area[:, None]], 1).tolist()
    return sorted((tuple(region) for region in found), key=lambda region: (-region[-1], region))


def without_small(mask: NDArray[np.bool_], min_area: int) -> NDArray[np.bool_]:
    """A mask without its 8-connected regions of fewer than ``min_area`` pixels.

    Example:
        >>> without_small(np.array([[1, 1, 0, 1]], bool), 2)
        array([[ True,  True, False, False]])
    """
    if min_area <= 1:
        return mask
    row, start, stop, label = connected_runs(mask).T
    area = np.bincount(label, stop - start)
    left = mask.copy()
    for run in np.flatnonzero(area[label] < min_area):
        left[row[run], start[run] : stop[run]] = False
    return left
