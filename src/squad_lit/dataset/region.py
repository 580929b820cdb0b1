"""``dataset.roi``: the region of interest in which a model is trained, measured and used."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from squad_lit.image.roi import Roi, to_roi

# Logarithm of the factor by which the shape of a mask may differ from that of the images, because of rounding.
_SHAPE = 0.02


def read_region(given: str | Path | Sequence[int], sizes: Mapping[Path, tuple[int, int]]) -> Roi:
    """The region of interest of images.

    Args:
        given: A picture that is not 0 inside, in the shape of the images and of any size; or row, column, height and
            width of a rectangle, in pixels of the images.
        sizes: Height and width of each normal training image.

    Raises:
        OSError: The picture cannot be read.
        ValueError: The region is empty, or does not fit the images.
    """
    if not isinstance(given, str | Path):
        return _rectangle(given, sizes)
    path = Path(given).expanduser().absolute()
    try:
        roi = to_roi(path, f"roi: {path}")
    except OSError as error:
        raise type(error)(f"roi: {error}") from error
    shape = roi.shape[0] / roi.shape[1]
    other = [path for path, (height, width) in sizes.items() if abs(math.log(height / width / shape)) > _SHAPE]
    if other:
        height, width = sizes[other[0]]
        raise ValueError(
            f"roi: {path} is {roi.shape[0]}x{roi.shape[1]} pixels (height x width), and {len(other)} of {len(sizes)} "
            f"training images have another shape, such as {other[0]} with {height}x{width}; draw it on one of the "
            f"images, or on a smaller copy of the same shape"
        )
    return roi


def _rectangle(given: Sequence[int], sizes: Mapping[Path, tuple[int, int]]) -> Roi:
    several = sorted(set(sizes.values()))
    if len(several) > 1:
        raise ValueError(
            f"roi: a rectangle is in pixels, and the training images have {len(several)} sizes, such as "
            f"{several[0][0]}x{several[0][1]} and {several[-1][0]}x{several[-1][1]} (height x width); give a picture "
            f"of the region in their shape"
        )
    row, column, height, width = given
    beyond = row + height > several[0][0] or column + width > several[0][1]
    if min(row, column) < 0 or min(height, width) < 1 or beyond:
        raise ValueError(
            f"roi: expected [row, column, height, width] inside of the images, which have {several[0][0]}x"
            f"{several[0][1]} pixels (height x width), got {list(given)}"
        )
    roi = np.zeros(several[0], bool)
    roi[row : row + height, column : column + width] = True
    return roi
