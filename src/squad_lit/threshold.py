"""Thresholds from normal images alone, by order statistics."""

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
        raise ValueError(f"threshold.false_alarm_rate: expected a share in (0, 1), got {false_alarm_rate}")
    n = len(values)
    if n == 0:
        raise ValueError("there is no normal image to take a threshold from")
    # 1e-9: 0.29 * 100 is 28.999999999999996.
    k = min(max(1, int(false_alarm_rate * (n + 1) + 1e-9)), n)
    return Threshold(sorted(values)[-k], k / (n + 1), (_beta_quantile(0.025, k, n), _beta_quantile(0.975, k, n)), n)


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
