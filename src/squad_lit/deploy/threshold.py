"""Thresholds from normal images alone, by order statistics, or from normal images and known defects.

Where normal images are too few for a rate, a threshold can be extrapolated, which assumes how their scores are
distributed.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

FALSE_ALARM_RATE = 0.01
"""Default share of normal images that may be called anomalous."""
# From fewer images nothing is extrapolated: the threshold would miss most defects (experiments/threshold).
_FEWEST = 4


class Threshold(NamedTuple):
    """A threshold, and how often a normal image exceeds it.

    Args:
        value: Scores above it are anomalous.
        false_alarm_rate: Expected share of normal images above it.
        interval: 95 % confidence interval of that share.
        images: Number of normal images that it comes from.
        asked: The rate that was asked for; None where known defects, or somebody, chose the threshold.
        is_extrapolated: Whether rate and interval assume that scores are normally distributed.
    """

    value: float
    false_alarm_rate: float
    interval: tuple[float, float]
    images: int
    asked: float | None = None
    is_extrapolated: bool = False

    def __str__(self) -> str:
        low, high = map(_percent, self.interval)
        if_normal = " if their scores are normally distributed" if self.is_extrapolated else ""
        return (
            f"{self.value:.3g}: about {_percent(self.false_alarm_rate)} % of normal images lie above it{if_normal} "
            f"(95 % interval {low} to {high} %, from {_counted(self.images)})"
        )

    @property
    def shortfall(self) -> str:
        """What is missing for the rate that was asked for; see the function of this name."""
        if self.asked is None:
            return ""
        return shortfall(self.asked, self.images, is_extrapolated=self.is_extrapolated)


def shortfall(asked: float, images: int, *, is_extrapolated: bool = False) -> str:
    """What so many normal images lack for a false-alarm rate, as a sentence; empty if they support it."""
    if _supports(images, asked):
        return ""
    needed = 1 / asked - 1
    number = f"{math.ceil(needed - 1e-9):,}" if needed < 1e9 else "more than a billion"
    so = "and the threshold is extrapolated" if is_extrapolated else f"for about {_percent(1 / (images + 1))} %"
    other = (
        "" if is_extrapolated or images < _FEWEST else ", and predict --extrapolate assumes how scores are distributed"
    )
    return (
        f"a false-alarm rate of {_percent(asked)} % needs {number} normal images that the model was not trained on; "
        f"there {'is' if images == 1 else 'are'} {images:,}, {so}; squad-lit calibrate takes more{other}"
    )


def _supports(images: int, rate: float) -> bool:
    return rate * (images + 1) >= 1 - 1e-9


def from_normals(values: Sequence[float], false_alarm_rate: float, *, extrapolate: bool = False) -> Threshold:
    """The threshold that a stated share of normal images exceeds.

    If n normal images and a new one come from one distribution, the new one exceeds the k-th highest of the n with
    probability k / (n + 1), whatever that distribution is. The threshold is therefore the k-th highest value, with the
    largest k for which k / (n + 1) does not exceed the rate. n images cannot support a rate below 1 / (n + 1): for a
    lower one the threshold is the highest value, and its rate 1 / (n + 1). The true share above the k-th highest value
    has a Beta(k, n + 1 - k) distribution, which gives the interval.

    Args:
        values: Score, or highest pixel of the map, per normal image that the model was not trained on.
        false_alarm_rate: Share in (0, 1).
        extrapolate: Whether a rate that the images do not support is extrapolated, if there are at least four: see
            :func:`extrapolated`.

    Raises:
        ValueError: There are no values, one is not finite, or the rate is out of range.

    Example:
        >>> from_normals([0.1, 0.5, 0.2, 0.4], 0.4).value
        0.4
    """
    if not 0 < false_alarm_rate < 1:
        raise ValueError(f"false-alarm rate: expected a share in (0, 1), got {false_alarm_rate}")
    n = len(values)
    if n == 0:
        raise ValueError("there is no normal image to take a threshold from")
    _check_finite(values)
    if extrapolate and n >= _FEWEST and not _supports(n, false_alarm_rate):
        return extrapolated(values, false_alarm_rate)
    # 1e-9: 0.29 * 100 is 28.999999999999996.
    k = min(max(1, int(false_alarm_rate * (n + 1) + 1e-9)), n)
    interval = _beta_quantile(0.025, k, n), _beta_quantile(0.975, k, n)
    return Threshold(sorted(values)[-k], k / (n + 1), interval, n, false_alarm_rate)


def extrapolated(values: Sequence[float], false_alarm_rate: float) -> Threshold:
    """The threshold that a rate has if the scores of normal images are normally distributed.

    A new one then exceeds mean + t * deviation * sqrt(1 + 1 / n) with the probability of the rate, where t is the
    quantile of Student's distribution with n - 1 degrees of freedom. The threshold is at least the highest value. Real
    scores have longer tails than normal ones, so expect some times the rate that was asked for, but less than above the
    highest value of a few images (experiments/threshold).

    Args:
        values: As of :func:`from_normals`, at least two.
        false_alarm_rate: Share in (0, 1).

    Example:
        >>> round(extrapolated([1.0, 2.0, 3.0, 4.0], 0.01).value, 2)  # 2.5 + 4.54 * 1.29 * 1.12
        9.05
    """
    n, middle, deviation = len(values), statistics.fmean(values), statistics.stdev(values)
    reach = _student(false_alarm_rate, n - 1) * math.sqrt(1 + 1 / n)
    # Where the threshold lies in true deviations from the true mean, in many samples of n.
    rng = np.random.default_rng(0)
    places = rng.normal(size=20_000) / math.sqrt(n) + reach * np.sqrt(rng.chisquare(n - 1, 20_000) / (n - 1))
    low, high = (statistics.NormalDist().cdf(-float(np.quantile(places, share))) for share in (0.975, 0.025))
    value = max(middle + reach * deviation, *values)
    return Threshold(value, false_alarm_rate, (low, high), n, false_alarm_rate, is_extrapolated=True)


def from_defects(normal: Sequence[float], defective: Sequence[float]) -> Threshold:
    """The threshold with the highest F1 between known defects and normal images.

    It lies halfway between two neighbouring scores. If several thresholds have the same F1, it is the highest of them.
    Its false-alarm rate is the counted share of normal images above it, with the interval of Clopper and Pearson. F1
    depends on the ratio of defective to normal images, so their numbers should have the ratio that the line has.

    Args:
        normal: Scores of normal images that the model was not trained on.
        defective: Scores of images with a defect.

    Raises:
        ValueError: There is no normal or no defective image, or a score is not finite.

    Example:
        >>> from_defects([0.1, 0.2, 0.6], [0.4, 0.8, 0.9])[:2]
        (0.30000000000000004, 0.3333333333333333)
    """
    if not normal or not defective:
        raise ValueError(f"expected normal and defective images, got {len(normal)} and {len(defective)}")
    _check_finite([*normal, *defective])
    good, bad = np.sort(normal), np.sort(defective)
    levels = np.unique([*good, *bad])
    middles = np.array([levels[0] - 1, *(levels[1:] + levels[:-1]) / 2])
    false = len(good) - np.searchsorted(good, middles, side="right")
    true = len(bad) - np.searchsorted(bad, middles, side="right")
    f1 = 2 * true / (true + false + len(bad))
    best = np.flatnonzero(f1 == f1.max())[-1]
    return given(normal, float(middles[best]))


def given(normal: Sequence[float], value: float) -> Threshold:
    """A threshold that somebody has chosen, with the counted share of normal images above it.

    The interval of the share is that of Clopper and Pearson.

    Args:
        normal: Scores of normal images that the model was not trained on.
        value: The threshold.

    Raises:
        ValueError: The value is not finite.

    Example:
        >>> given([0.1, 0.2, 0.6, 0.3], 0.5)[:2]
        (0.5, 0.25)
    """
    if not math.isfinite(value):
        raise ValueError(f"threshold: expected a finite number, got {value}")
    n, k = len(normal), sum(score > value for score in normal)
    low = _beta_quantile(0.025, k, n) if k > 0 else 0.0
    high = _beta_quantile(0.975, k + 1, n) if k < n else 1.0
    return Threshold(value, k / n, (low, high), n)


def _check_finite(values: Sequence[float]) -> None:
    if wrong := [value for value in values if not math.isfinite(value)]:
        raise ValueError(
            f"no threshold comes from a score of {wrong[0]}, which {len(wrong)} of {len(values)} images have: the file "
            f"of the model is damaged, or it diverged"
        )


def separation(normal: Sequence[float], defective: Sequence[float]) -> float:
    """The chance that a defective image scores higher than a normal one, which is the image AUROC; 0.5 says nothing.

    Example:
        >>> separation([0.1, 0.5], [0.5, 0.9])
        0.875
    """
    good = np.sort(normal)
    below, not_above = (np.searchsorted(good, defective, side=side).mean() for side in ("left", "right"))
    return float(below + not_above) / 2 / len(good)


def strange(scores: Sequence[float], normal: Sequence[float]) -> str:
    """A sentence if most of at least five new images score far above all normal ones; else an empty text.

    Far is above the highest normal score by more than that exceeds the median or, with fewer than five normal scores,
    whose spread says little, above twice the highest. Defects alone rarely fill half a folder, so that it may be
    another product, camera or light.
    """
    if len(scores) < 5 or len(normal) < 2:
        return ""
    highest = max(normal)
    limit = 2 * highest - statistics.median(normal) if len(normal) >= 5 else 2 * abs(highest)
    far = sum(score > limit for score in scores)
    if 2 * far <= len(scores):
        return ""
    return (
        f"{far} of {len(scores)} images score far above all {_counted(len(normal))} that are known (median "
        f"{statistics.median(scores):.3g}, highest normal score {highest:.3g}): are they of the product, camera and "
        f"light that the model was trained on?"
    )


def choose(
    scores: Sequence[float],
    maxima: Sequence[float],
    defective: Sequence[float],
    false_alarm_rate: float | None,
    *,
    threshold: float | None = None,
    extrapolate: bool = False,
) -> tuple[Threshold, Threshold]:
    """The thresholds of the score and of the pixels of the map.

    Args:
        scores: Scores of normal images that the model was not trained on.
        maxima: Highest pixel of the map per normal image. The pixel threshold comes from them at the same rate, so that
            normal images have a mask that is not empty as often as they have a score above its threshold.
        defective: Scores of images with a defect; may be empty.
        false_alarm_rate: Share in (0, 1). None means the highest F1 if there are defective images, else
            ``FALSE_ALARM_RATE``.
        threshold: A threshold that somebody has chosen, in the place of a rate; None: there is none.
        extrapolate: See :func:`from_normals`.

    Raises:
        ValueError: There is no normal image, or the rate is out of range.
    """
    if threshold is not None or (false_alarm_rate is None and defective):
        limit = from_defects(scores, defective) if threshold is None else given(scores, threshold)
        supported = min(max(limit.false_alarm_rate, 1e-6), 1 - 1e-6)  # a rate of 0 gives the highest maximum
        return limit, from_normals(maxima, supported)._replace(asked=None)
    rate = FALSE_ALARM_RATE if false_alarm_rate is None else false_alarm_rate
    of_score = from_normals(scores, rate, extrapolate=extrapolate)
    return of_score, from_normals(maxima, rate, extrapolate=extrapolate)


def _percent(share: float) -> str:
    """Two digits, or all before the point, as people write a percentage."""
    return f"{100 * share:.0f}" if share >= 0.0995 else f"{100 * share:.2g}"


def _counted(images: int) -> str:
    return f"{images:,} normal image{'s' * (images != 1)}"


@cache
def _student(rate: float, degrees: int) -> float:
    """The value that Student's t exceeds with a probability, by the trapezoidal rule over the arc tangent of t."""
    angle = np.linspace(-math.pi / 2, math.pi / 2, 400_001)
    density = np.cos(angle) ** (degrees - 1)
    above = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1])[::-1])])  # from the right
    return math.sqrt(degrees) * math.tan(np.interp(rate, above / above[-1], angle[::-1]))


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
