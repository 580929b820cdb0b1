"""Thresholds: from normal images alone, by order statistics, or refined with known defects."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

FALSE_ALARM_RATE = 0.01
"""Share of normal images that may be called anomalous, unless another is asked for."""


class Threshold(NamedTuple):
    """From when on an image is called anomalous, and how often a normal one will be.

    Args:
        value: What lies above it is anomalous.
        false_alarm_rate: Expected share of normal images above it.
        interval: Within which the true share lies in 95 of 100 draws of the normal images.
        images: Normal images that it comes from.
    """

    value: float
    false_alarm_rate: float
    interval: tuple[float, float]
    images: int

    def __str__(self) -> str:
        low, high = (100 * end for end in self.interval)
        return (
            f"{self.value:.3g}: about {100 * self.false_alarm_rate:.2g} % of normal images lie above it (95 % interval "
            f"{low:.2g} to {high:.2g} %, from {self.images} normal images)"
        )


def from_normals(values: Sequence[float], false_alarm_rate: float) -> Threshold:
    """The threshold that a stated share of normal images exceeds.

    If n normal images and a new one are drawn alike, the new one exceeds the k-th highest of the n with probability k /
    (n + 1), whatever the distribution. The threshold is the k-th highest with the largest such k that does not exceed
    the asked rate. Fewer images than 1 / rate - 1 do not support the rate: then it is the highest value, and the rate
    is the smallest that they do support, 1 / (n + 1). The true share above the k-th highest has a Beta(k, n + 1 - k)
    distribution, hence the interval.

    Args:
        values: A score, or the highest pixel, of each normal image that was not trained on.
        false_alarm_rate: In (0, 1).

    Raises:
        ValueError: No values, or a rate out of range.

    Example:
        >>> from_normals([0.1, 0.5, 0.2, 0.4], 0.4).value
        0.4
    """
    if not 0 < false_alarm_rate < 1:
        raise ValueError(f"false-alarm rate: expected a share in (0, 1), got {false_alarm_rate}")
    n = len(values)
    if n == 0:
        raise ValueError("there is no normal image to take a threshold from")
    # 1e-9: 0.29 * 100 is 28.999999999999996.
    k = min(max(1, int(false_alarm_rate * (n + 1) + 1e-9)), n)
    return Threshold(sorted(values)[-k], k / (n + 1), (_beta_quantile(0.025, k, n), _beta_quantile(0.975, k, n)), n)


def from_defects(normal: Sequence[float], defective: Sequence[float]) -> Threshold:
    """The threshold that tells known defects from normal images best: that of the highest F1.

    It lies in the middle between two neighbouring scores. Of several equal ones it is the one that calls the fewest
    normal images anomalous. The share of normal images above it is what was counted, the interval Clopper and
    Pearson's. F1 weighs defects by how many were given: give about as many as come with so many good parts.

    Args:
        normal: Scores of normal images that were not trained on.
        defective: Scores of images with a defect.

    Raises:
        ValueError: No normal or no defective image.

    Example:
        >>> from_defects([0.1, 0.2, 0.6], [0.4, 0.8, 0.9])[:2]
        (0.30000000000000004, 0.3333333333333333)
    """
    if not normal or not defective:
        raise ValueError(f"expected normal and defective images, got {len(normal)} and {len(defective)}")
    good, bad = np.sort(normal), np.sort(defective)
    levels = np.unique([*good, *bad])
    middles = np.array([levels[0] - 1, *(levels[1:] + levels[:-1]) / 2])
    false = len(good) - np.searchsorted(good, middles, side="right")
    true = len(bad) - np.searchsorted(bad, middles, side="right")
    f1 = 2 * true / (true + false + len(bad))
    best = np.flatnonzero(f1 == f1.max())[-1]
    n, k = len(good), int(false[best])
    low = _beta_quantile(0.025, k, n) if k > 0 else 0.0
    high = _beta_quantile(0.975, k + 1, n) if k < n else 1.0
    return Threshold(float(middles[best]), k / n, (low, high), n)


def choose(
    scores: Sequence[float], maxima: Sequence[float], defective: Sequence[float], false_alarm_rate: float | None
) -> tuple[Threshold, Threshold]:
    """The thresholds of the score and of the map's pixels.

    Args:
        scores: Of normal images that were not trained on.
        maxima: Highest pixel of each one's map: a normal image has any pixel above the pixel threshold as often as it
            has a score above the other.
        defective: Scores of images with a defect; may be empty.
        false_alarm_rate: In (0, 1). None: what tells the defective ones best or, without them, ``FALSE_ALARM_RATE``.

    Raises:
        ValueError: No normal image, or a rate out of range.
    """
    if false_alarm_rate is None and defective:
        limit = from_defects(scores, defective)
        supported = min(max(limit.false_alarm_rate, 1e-6), 1 - 1e-6)  # of none above: the highest maximum
        return limit, from_normals(maxima, supported)
    rate = FALSE_ALARM_RATE if false_alarm_rate is None else false_alarm_rate
    return from_normals(scores, rate), from_normals(maxima, rate)


@cache
def _beta_quantile(share: float, k: int, n: int) -> float:
    """Quantile of Beta(k, n + 1 - k), by bisection: its distribution function at x is P(Binomial(n, x) >= k)."""
    i = np.arange(k)
    log_choose = np.array([math.lgamma(n + 1) - math.lgamma(j + 1) - math.lgamma(n - j + 1) for j in range(k)])
    low, high = 0.0, 1.0
    for _ in range(52):  # bits of a float
        x = (low + high) / 2
        fewer = np.exp(log_choose + i * math.log(x) + (n - i) * math.log1p(-x)).sum()
        low, high = (x, high) if 1 - fewer < share else (low, x)
    return (low + high) / 2
