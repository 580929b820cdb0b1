"""The one rule for the label of an image and for its regions."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from squad_lit.image.region import Region, connected_regions, without_small


class Verdict(NamedTuple):
    """Whether an image is anomalous, and where.

    Args:
        label: 1 is anomalous, 0 is normal.
        mask: ``(H, W)``, true in the regions.
        regions: The largest first; at least one if the label is 1, and none if it is 0.
    """

    label: int
    mask: NDArray[np.bool_]
    regions: list[Region]


def decide(
    anomaly_map: NDArray[np.float32], score: float, threshold: float, pixel_threshold: float, *, min_area: int = 0
) -> Verdict:
    """Label an image, and find its regions.

    An image is anomalous if its score exceeds the threshold and it has a region. The regions are where the map exceeds
    the pixel threshold. If it does so nowhere, they are where it exceeds the threshold of the score, as some pixels
    do, because the score is the mean of the highest ones. Regions smaller than ``min_area`` do not count.

    Args:
        anomaly_map: ``(H, W)``, NaN outside of a region of interest.
        score: The anomaly score, in the unit of the map.
        threshold: That of the score.
        pixel_threshold: That of the map.
        min_area: Least area of a region in pixels of the map.

    Example:
        >>> decide(np.float32([[1, 5, 1, 3]]), 4.0, threshold=2.0, pixel_threshold=4.0).regions
        [(0, 1, 1, 1, 1)]
        >>> decide(np.float32([[1, 5, 1, 3]]), 4.0, threshold=2.0, pixel_threshold=6.0).regions
        [(0, 1, 1, 1, 1), (0, 3, 1, 1, 1)]
    """
    if score > threshold:
        # A map that was reduced to a small image may have lost the pixels above both: its highest one is left.
        for level in (pixel_threshold, min(threshold, float(np.nanmax(anomaly_map)))):
            mask = without_small(anomaly_map >= level, min_area)
            if regions := connected_regions(mask):
                return Verdict(1, mask, regions)
    return Verdict(0, np.zeros(anomaly_map.shape, bool), [])
