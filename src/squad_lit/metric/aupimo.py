"""AUPIMO: how much of each anomalous image is found while next to nothing is marked on normal images."""

import math
import warnings
from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor

from squad_lit.metric.ranking import Maps, check_maps

FPR_RANGE = (1e-5, 1e-4)
"""False-positive rates over which the authors integrate."""


def aupimo(anomaly_map: Maps, mask: Maps, *, fpr_range: tuple[float, float] = FPR_RANGE) -> Tensor:
    """Mean over the anomalous images of :func:`aupimo_per_image`.

    Args:
        anomaly_map: See :func:`aupimo_per_image`.
        mask: See :func:`aupimo_per_image`.
        fpr_range: See :func:`aupimo_per_image`.

    Returns:
        Scalar, float64, in [0, 1]; NaN, with a ``UserWarning``, as for :func:`aupimo_per_image`.
    """
    return aupimo_per_image(anomaly_map, mask, fpr_range=fpr_range).nanmean()


def aupimo_per_image(anomaly_map: Maps, mask: Maps, *, fpr_range: tuple[float, float] = FPR_RANGE) -> Tensor:
    """Area under the per-image overlap curve (AUPIMO) of each anomalous image, scaled to [0, 1].

    At each threshold, the overlap of an image is the share of its anomalous pixels at or above it. The false-positive
    rate is that of normal images alone, averaged over them, and is the same for all anomalous images. The curve is
    integrated over the logarithm of this rate, and its area is divided by that of a perfect curve.

    The curve is a staircase, because every distinct score is a threshold. A pixel that is found from the rate r on
    adds a step of width log(u / r), with r limited to the range [l, u], so that no threshold is chosen and nothing is
    interpolated.

    Args:
        anomaly_map: ``(N, H, W)``, or a sequence of ``(H, W)`` that may differ in size; floating point, any finite
            values; higher is more anomalous. Only the order matters.
        mask: The same shapes, boolean or integer; 0 is normal, any other value is anomalous. An image whose mask is all
            0 is a normal image.
        fpr_range: Ends l and u of the false-positive rate, 0 < l < u <= 1.

    Returns:
        ``(N,)``, float64, in [0, 1]; NaN for normal images. All are NaN, with a ``UserWarning``, unless there are
        normal images, anomalous images, and 1 / l normal pixels, with fewer of which no rate is as low as l.

    Raises:
        ValueError: A shape or dtype is wrong, a map value is NaN or infinite, or ``fpr_range`` is no such range.

    Example:
        Of the four normal pixels, one is above both anomalous pixels, and another above one of them: the first is found
        from the rate 1/4 on, the other from 1/2 on. Up to 1 the steps have widths log(4) and log(2).

        >>> maps = torch.tensor([[[0.1, 0.9, 0.2, 0.4]], [[0.1, 0.1, 0.5, 0.3]]])
        >>> mask = torch.tensor([[[0, 0, 0, 0]], [[0, 0, 1, 1]]])
        >>> aupimo_per_image(maps, mask, fpr_range=(0.25, 1.0))
        tensor([   nan, 0.7500], dtype=torch.float64)

    Reference:
        Bertoldo et al., "AUPIMO: Redefining Visual Anomaly Detection Benchmarks with High Speed and Low Tolerance",
        BMVC 2024.
    """
    low, high = fpr_range
    if not 0 < low < high <= 1:
        raise ValueError(f"fpr_range: expected 0 < low < high <= 1, got {fpr_range}")
    maps, positive = check_maps(anomaly_map, mask)
    positive = list(chain.from_iterable(p if p.ndim == 3 else [p] for p in positive))
    per_image = maps[0] if len(maps) == 1 and maps[0].ndim == 3 else maps
    normal = [i for i, p in enumerate(positive) if not p.any()]
    pixels = sum(positive[i].numel() for i in normal)
    found = torch.full((len(positive),), math.nan, dtype=torch.float64)
    if not normal or len(normal) == len(positive) or pixels * low < 1:
        what = f"{pixels:,} pixels of normal images, where rates of {low:g} need {math.ceil(1 / low - 1e-9):,}"
        if len(normal) == len(positive):
            what = f"no anomalous image among {len(positive)}"
        warnings.warn(f"undefined metric, returning NaN: {what}", UserWarning, stacklevel=2)
        return found
    value, rate = _highest(per_image, normal, high)
    for i, p in enumerate(positive):
        if p.any():
            at = torch.searchsorted(value, per_image[i][p].cpu().double())  # the first value at or above the score
            found[i] = (high / rate[at].clamp(low, high)).log().mean() / math.log(high / low)
    return found


def _highest(maps: Maps, normal: Sequence[int], share: float) -> tuple[Tensor, Tensor]:
    """The highest values of the normal images, ascending, and the rate at or above each; the rate 0 comes last.

    Of each image only as many are kept as suffice to reach the share, because higher rates count as the share itself.
    """
    values, weights = [], []
    for i in normal:
        pixels = maps[i].flatten()
        kept = min(len(pixels), math.ceil(share * len(normal) * len(pixels)) + 1)
        values.append(pixels.topk(kept).values.cpu().double())
        weights.append(torch.full((kept,), 1 / (len(normal) * len(pixels)), dtype=torch.float64))
    value, order = torch.cat(values).sort()
    rate = torch.cat(weights)[order].flip(0).cumsum(0).flip(0)
    return value, torch.cat([rate, rate.new_zeros(1)])
