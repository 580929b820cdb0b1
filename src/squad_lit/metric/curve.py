"""Exact ROC, precision-recall and per-region-overlap curves, whose areas are the ranking metrics."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from squad_lit.metric.ranking import Maps, Ranking, check, check_limits, check_maps, rank, region_area

# Quantities along x and y, by the last part of a curve's name.
AXES = {
    "roc": ("false_positive_rate", "true_positive_rate"),
    "pr": ("recall", "precision"),
    "pro": ("false_positive_rate", "region_overlap"),
}


class Curve(NamedTuple):
    """A polyline, from the highest threshold to the lowest.

    Args:
        x: ``(K,)`` float64 in [0, 1], never decreasing.
        y: ``(K,)`` float64 in [0, 1].
    """

    x: Tensor
    y: Tensor


def image_curves(score: Tensor, label: Tensor) -> dict[str, Curve]:
    """ROC and precision-recall curve of image scores.

    Args:
        score: See :func:`squad_lit.metric.image_metrics`.
        label: See :func:`squad_lit.metric.image_metrics`.

    Returns:
        ``image_roc``, from (0, 0) to (1, 1), and ``image_pr``, from (0, 1) with one point per distinct score of an
        anomalous image. Empty, with a ``UserWarning``, unless both classes are present.

    Example:
        >>> curves = image_curves(torch.tensor([0.1, 0.4, 0.35, 0.8]), torch.tensor([0, 0, 1, 1]))
        >>> curves["image_roc"].x.tolist(), curves["image_roc"].y.tolist()
        ([0.0, 0.0, 0.5, 0.5, 1.0], [0.0, 0.5, 0.5, 1.0, 1.0])
    """
    ranking = rank([score], [check(score, label)])
    return {} if ranking is None else {"image_roc": _rising(ranking), "image_pr": _precision_recall(ranking)}


def pixel_curves(anomaly_map: Maps, mask: Maps, *, fpr_limit: float = 0.3) -> dict[str, Curve]:
    """ROC, precision-recall and per-region-overlap curve of anomaly maps.

    Args:
        anomaly_map: See :func:`squad_lit.metric.pixel_metrics`.
        mask: See :func:`squad_lit.metric.pixel_metrics`.
        fpr_limit: Right end of the per-region-overlap curve, in (0, 1].

    Returns:
        ``pixel_roc``, ``pixel_pr`` and ``pixel_pro``. Empty, with a ``UserWarning``, unless both classes of pixels are
        present.
    """
    (limit,) = check_limits(fpr_limit).values()
    maps, positive = check_maps(anomaly_map, mask)
    ranking = rank(maps, positive)
    if ranking is None:
        return {}
    overlap = _rising(ranking, 1 / region_area(positive)[ranking.order])
    return {
        "pixel_roc": _rising(ranking),
        "pixel_pr": _precision_recall(ranking),
        "pixel_pro": _cut(overlap, limit),
    }


def thin(curve: Curve, points: int = 200) -> Curve:
    """Keep at most ``points`` vertices of a curve, evenly along its length, including both ends.

    Length is measured as steps in x plus steps in y, so that a steep part keeps as many points as a flat one.

    Example:
        >>> thin(Curve(torch.linspace(0, 1, 5), torch.zeros(5)), 3).x.tolist()
        [0.0, 0.5, 1.0]
    """
    if len(curve.x) <= points:
        return curve
    way = torch.cat([torch.zeros(1), (curve.x.diff().abs() + curve.y.diff().abs()).cumsum(0).cpu()])
    kept = torch.searchsorted(way, torch.linspace(0, float(way[-1]), points, dtype=way.dtype)).clamp(max=len(way) - 1)
    kept[-1] = len(way) - 1
    kept = kept.unique()
    return Curve(curve.x[kept], curve.y[kept])


def named(name: str, curve: Curve) -> dict[str, Sequence[float]]:
    """The coordinates of a curve by the names of its axes, as in ``curves.json``."""
    return dict(zip(AXES[name.rpartition("_")[2]], (curve.x.tolist(), curve.y.tolist()), strict=True))


def _rising(ranking: Ranking, weight: Tensor | None = None) -> Curve:
    """The (weighted) share of positives against the share of negatives, at or above each threshold.

    Between the scores of two positives the curve runs horizontally. At tied scores it runs straight to the point where
    all of them are counted.
    """
    weight = torch.ones_like(ranking.score, dtype=torch.float64) if weight is None else weight
    first = _first_of_each_score(ranking.score)
    found = (weight.flip(0).cumsum(0).flip(0) / weight.sum())[first]
    found_above = torch.cat([found[1:], found.new_zeros(1)])
    x = torch.stack([ranking.false[first], ranking.false_above[first]], 1).flatten().flip(0) / ranking.n_negative
    y = torch.stack([found, found_above], 1).flatten().flip(0)
    ends = x.new_tensor([0.0]), x.new_tensor([1.0])
    return _without_repeats(torch.cat([ends[0], x, ends[1]]), torch.cat([ends[0], y, ends[1]]))


def _precision_recall(ranking: Ranking) -> Curve:
    first = _first_of_each_score(ranking.score).flip(0)
    true, false = ranking.true[first], ranking.false[first]
    recall, precision = true / len(ranking.score), true / (true + false)
    return Curve(torch.cat([recall.new_zeros(1), recall]), torch.cat([precision.new_ones(1), precision]))


def _first_of_each_score(score: Tensor) -> Tensor:
    """The first index of each distinct value of ascending scores."""
    return torch.cat([score.new_ones(1, dtype=torch.bool), score.diff() != 0]).nonzero().flatten()


def _without_repeats(x: Tensor, y: Tensor) -> Curve:
    new = torch.cat([x.new_ones(1, dtype=torch.bool), (x.diff() != 0) | (y.diff() != 0)])
    return Curve(x[new], y[new])


def _cut(curve: Curve, limit: float) -> Curve:
    """The curve up to x = limit, with an interpolated end."""
    inside = int((curve.x <= limit).sum())
    x, y = curve.x[:inside], curve.y[:inside]
    if inside == len(curve.x) or float(x[-1]) == limit:
        return Curve(x, y)
    share = (limit - x[-1]) / (curve.x[inside] - x[-1])
    end = y[-1] + share * (curve.y[inside] - y[-1])
    return Curve(torch.cat([x, x.new_tensor([limit])]), torch.cat([y, end[None]]))
