"""Maps of which only a region of interest counts, as single rows of pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from skimage.measure import label as label_regions
from torch import Tensor

from squad_lit.image.roi import Roi


class Strips(Sequence[Tensor]):
    """Maps of which only some pixels count, in an order of their own, each made when it is asked for."""

    def __init__(self, maps: Sequence[Tensor], orders: Sequence[Tensor]) -> None:
        self.maps, self.orders = maps, orders

    def __len__(self) -> int:
        return len(self.maps)

    def __getitem__(self, i: Any) -> Any:
        return self.maps[i].flatten()[self.orders[i]][None]


def strip_order(mask: Tensor, inside: Roi) -> Tensor:
    """Puts the pixels of a region of interest into a single row in which the parts of a mask stay apart.

    Metrics depend on the pixels and on which of them are one part of the mask, and not on where they lie. Between two
    parts there is a pixel that is not anomalous, as long as there are as many.

    Args:
        mask: ``(H, W)`` bool.
        inside: ``(H, W)``.

    Returns:
        The numbers of the pixels in the flattened image, ``(n,)``.
    """
    part = label_regions(mask.numpy() & inside, connectivity=2)[inside]
    pixels = np.flatnonzero(inside)
    marked, normal = np.argsort(part, kind="stable")[(part == 0).sum() :], np.flatnonzero(part == 0)
    breaks = np.flatnonzero(np.diff(part[marked])) + 1
    between = normal[: len(breaks)]
    row = np.concatenate([np.insert(marked, breaks[: len(between)], between), normal[len(between) :]])
    # The rest begins beside the last part, of which it is none.
    return torch.from_numpy(pixels[row])
