"""Ranking metrics of anomaly detection, exact on raw scores: AUROC, average precision, best F1 and AUPRO.

Only the order of the scores matters; nothing is squashed, binned or normalised. Every distinct score is a threshold,
and "anomalous" means *score >= threshold*. Each metric is a sum or maximum over the positives of two counts from
:mod:`.ranking`, the positives and the negatives at or above each positive.
"""

import math
import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from squad_lit.metric.ranking import Maps, Ranking, at_or_above, check, check_limits, check_maps, rank, region_area


def auroc(score: Tensor, label: Tensor) -> Tensor:
    """Area under the ROC curve, the probability that an anomalous sample scores above a normal one; a tie counts half.

    Args:
        score: ``(N,)``, floating point, any finite values; higher is more anomalous. Only the order matters.
        label: ``(N,)``, boolean or integer; 0 is normal, any other value is anomalous.

    Returns:
        Scalar, float64, in [0, 1]. NaN, with a ``UserWarning``, unless both classes are present.

    Raises:
        ValueError: A shape or dtype is wrong, or a score is NaN or infinite.

    Example:
        >>> auroc(torch.tensor([0.1, 0.4, 0.35, 0.8]), torch.tensor([0, 0, 1, 1]))
        tensor(0.7500, dtype=torch.float64)
    """
    ranking = rank([score], [check(score, label)])
    return _undefined([score]) if ranking is None else _area(ranking)


def average_precision(score: Tensor, label: Tensor) -> Tensor:
    """Average precision, the mean of the precision at each threshold, weighted by the recall gained there.

    As in scikit-learn, this is a step-wise sum without interpolation of the precision-recall curve.

    Args:
        score: See :func:`auroc`.
        label: See :func:`auroc`.

    Returns:
        Scalar, float64, in (0, 1]; NaN as for :func:`auroc`.

    Example:
        >>> average_precision(torch.tensor([0.1, 0.4, 0.35, 0.8]), torch.tensor([0, 0, 1, 1]))
        tensor(0.8333, dtype=torch.float64)
    """
    ranking = rank([score], [check(score, label)])
    return _undefined([score]) if ranking is None else _mean_precision(ranking)


def f1_max(score: Tensor, label: Tensor) -> Tensor:
    """Highest F1 score of the anomalous class over all thresholds.

    The threshold is chosen on the labels that judge it, so this is an upper bound of the F1 of a deployed detector.

    Args:
        score: See :func:`auroc`.
        label: See :func:`auroc`.

    Returns:
        Scalar, float64, in (0, 1]; NaN as for :func:`auroc`.

    Example:
        >>> f1_max(torch.tensor([0.1, 0.4, 0.35, 0.8]), torch.tensor([0, 0, 1, 1]))
        tensor(0.8000, dtype=torch.float64)
    """
    ranking = rank([score], [check(score, label)])
    return _undefined([score]) if ranking is None else _best_f1(ranking)


def image_metrics(score: Tensor, label: Tensor) -> dict[str, Tensor]:
    """All image metrics: AUROC, average precision and best F1.

    Args:
        score: See :func:`auroc`.
        label: See :func:`auroc`.

    Returns:
        ``image_auroc``, ``image_ap`` and ``image_f1_max``, scalars, float64, in [0, 1]. All are NaN, with one
        ``UserWarning``, unless both classes are present.
    """
    ranking = rank([score], [check(score, label)])
    if ranking is None:
        return {f"image_{name}": _undefined([score]) for name in ("auroc", "ap", "f1_max")}
    return _sample_metrics(ranking, "image")


def aupro(anomaly_map: Maps, mask: Maps, *, fpr_limit: float = 0.3) -> Tensor:
    """Area under the per-region-overlap curve, up to a false-positive rate, scaled to [0, 1].

    At each threshold, overlap is averaged over the connected regions (8-neighbourhood) of all masks, so a small defect
    weighs as much as a large one. The false-positive rate is over the normal pixels of all images. The curve
    (trapezoids between thresholds) is cut at ``fpr_limit`` by linear interpolation, and its area is divided by
    ``fpr_limit``. Tied scores share one threshold.

    Args:
        anomaly_map: ``(N, H, W)``, or a sequence of ``(H, W)`` that may differ in size; floating point, any finite
            values; higher is more anomalous. Only the order matters.
        mask: The same shapes, boolean or integer; 0 is normal, any other value is anomalous, such as 255 or a class
            index. All-zero masks are allowed and count as background.
        fpr_limit: Right end of the curve, in (0, 1].

    Returns:
        Scalar, float64, in [0, 1]. NaN, with a ``UserWarning``, unless both classes of pixels are present.

    Raises:
        ValueError: A shape or dtype is wrong, a map value is NaN or infinite, or ``fpr_limit`` is out of range.

    Example:
        The region of three pixels is found, and the region of a single pixel is missed.

        >>> mask = torch.tensor([[[1, 0, 0, 1, 1, 1]]])
        >>> aupro(torch.tensor([[[0.0, 0.1, 0.2, 0.8, 0.9, 0.7]]]), mask)
        tensor(0.5000, dtype=torch.float64)

    Reference:
        Bergmann et al., "Uninformed Students", CVPR 2020, section 4.
    """
    if isinstance(fpr_limit, Sequence):
        raise ValueError(f"fpr_limit must be one number, got {fpr_limit}; pixel_metrics takes several")
    limit = check_limits(fpr_limit)["pixel_aupro"]
    maps, positive = check_maps(anomaly_map, mask)
    ranking = rank(maps, positive)
    return _undefined(maps) if ranking is None else _area(ranking, limit, 1 / region_area(positive))


def pixel_metrics(anomaly_map: Maps, mask: Maps, *, fpr_limit: float | Sequence[float] = 0.3) -> dict[str, Tensor]:
    """All pixel metrics from one sort: AUROC, average precision, best F1 and AUPRO.

    The first three take the pixels of all images as one set of samples; the last is :func:`aupro`. The resolution is
    that of the given maps and masks. The memory holds a sorted copy of at most 2^25 values at a time, and otherwise
    grows with the anomalous pixels only.

    Args:
        anomaly_map: See :func:`aupro`. A sequence may compute its maps on access; each is accessed three times.
        mask: See :func:`aupro`.
        fpr_limit: Right end of the per-region-overlap curve, in (0, 1]. With several, the first gives ``pixel_aupro``,
            and each other one a key of its own, such as ``pixel_aupro_0.05``.

    Returns:
        ``pixel_auroc``, ``pixel_ap``, ``pixel_f1_max`` and ``pixel_aupro``, scalars, float64, in [0, 1]. All are NaN,
        with one ``UserWarning``, unless both classes of pixels are present.

    Raises:
        ValueError: A shape or dtype is wrong, a map value is NaN or infinite, or ``fpr_limit`` is out of range.

    Example:
        >>> mask = torch.tensor([[[1, 0, 0, 1, 1, 1]]])
        >>> metrics = pixel_metrics(torch.tensor([[[0.0, 0.1, 0.2, 0.8, 0.9, 0.7]]]), mask)
        >>> {name: round(value.item(), 4) for name, value in metrics.items()}
        {'pixel_auroc': 0.75, 'pixel_ap': 0.9167, 'pixel_f1_max': 0.8571, 'pixel_aupro': 0.5}
    """
    limits = check_limits(fpr_limit)
    maps, positive = check_maps(anomaly_map, mask)
    ranking = rank(maps, positive)
    if ranking is None:
        return {key: _undefined(maps) for key in ("pixel_auroc", "pixel_ap", "pixel_f1_max", *limits)}
    return _pixel_metrics(ranking, 1 / region_area(positive), limits)


def pixel_metrics_by_size(
    anomaly_map: Maps, mask: Maps, *, fpr_limit: float | Sequence[float] = 0.3
) -> dict[str, dict[str, Tensor]]:
    """The pixel metrics of the small, the medium and the large third of the anomalous regions.

    All regions of all masks are ordered by area and cut into thirds. Regions of equal area stay together, so the thirds
    may be uneven. Each third is measured on its own regions and the normal pixels of all images, without the pixels of
    other regions. Average precision falls with the share of anomalous pixels and is low for small regions even if the
    map is good, so compare it between models and not between thirds.

    Args:
        anomaly_map: See :func:`pixel_metrics`.
        mask: See :func:`pixel_metrics`.
        fpr_limit: See :func:`pixel_metrics`.

    Returns:
        For each of ``small``, ``medium`` and ``large`` that has a region, the metrics of :func:`pixel_metrics`,
        ``regions`` (their number) and ``largest_area`` (in pixels). Empty if there is no region or no normal pixel.
    """
    limits = check_limits(fpr_limit)
    maps, positive = check_maps(anomaly_map, mask)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # pixel_metrics has already warned
        ranking = rank(maps, positive)
    if ranking is None:
        return {}
    area = region_area(positive)
    regions = _one_per_region(area)
    cuts = [float(regions[math.ceil(len(regions) * third / 3) - 1]) for third in (1, 2, 3)]
    rows = {}
    for name, low, high in zip(("small", "medium", "large"), [0.0, *cuts], cuts, strict=False):
        chosen = (area > low) & (area <= high)
        if chosen.any():
            own = regions[(regions > low) & (regions <= high)]
            rows[name] = _pixel_metrics(_part(ranking, chosen[ranking.order]), 1 / area[chosen], limits)
            rows[name] |= {"regions": torch.tensor(len(own)), "largest_area": own.max().long()}
    return rows


def _part(ranking: Ranking, chosen: Tensor) -> Ranking:
    """The ranking of the chosen positives only; ``chosen`` is ``(P,)`` bool in the order of the ranking."""
    score = ranking.score[chosen]
    true, _ = at_or_above(score, score)
    order = ranking.order[chosen].argsort().argsort()  # their positions among the chosen ones
    return Ranking(score, true.double(), ranking.false[chosen], ranking.false_above[chosen], order, ranking.n_negative)


def _pixel_metrics(ranking: Ranking, weight: Tensor, limits: Mapping[str, float]) -> dict[str, Tensor]:
    aupros = {key: _area(ranking, limit, weight) for key, limit in limits.items()}
    return _sample_metrics(ranking, "pixel") | aupros


def _sample_metrics(ranking: Ranking, kind: str) -> dict[str, Tensor]:
    return {
        f"{kind}_auroc": _area(ranking),
        f"{kind}_ap": _mean_precision(ranking),
        f"{kind}_f1_max": _best_f1(ranking),
    }


def _area(ranking: Ranking, fpr_limit: float = 1.0, weight: Tensor | None = None) -> Tensor:
    """Area under the weighted share of detected positives, up to a false-positive rate.

    A single positive adds a ramp from ``false_above`` to ``false`` negatives, or a step if no negative is tied. The
    curve is the weighted mean of these ramps, whose areas and cut are exact. Equal weights give the ROC curve. Weights
    of one over the area of the region, in the order in which the positives were given, give the per-region overlap.
    """
    limit = fpr_limit * ranking.n_negative
    area = area_under_ramp(ranking.false, ranking.false_above, limit) / limit
    if weight is None:
        return area.mean()
    weight = weight[ranking.order]
    return (weight * area).sum() / weight.sum()  # the weights sum to the number of regions


def area_under_ramp(false: Tensor, false_above: Tensor, limit: Tensor | float) -> Tensor:
    """Area, up to ``limit`` negatives, under a curve that climbs from 0 at ``false_above`` to 1 at ``false``."""
    ramp = false - false_above
    covered = (limit - false_above).clamp(min=0)  # width from the foot of the ramp to the limit
    return torch.where(covered >= ramp, covered - ramp / 2, covered**2 / (2 * ramp))


def _mean_precision(ranking: Ranking) -> Tensor:
    """Mean over the positives of the precision at their score, because each adds 1/P to the recall."""
    return (ranking.true / (ranking.true + ranking.false)).mean()


def _best_f1(ranking: Ranking) -> Tensor:
    """Maximum of 2 TP / (2 TP + FP + FN), where TP + FN = P."""
    return (2 * ranking.true / (ranking.true + ranking.false + ranking.true.numel())).max()


def _one_per_region(area: Tensor) -> Tensor:
    """The sorted areas of the regions, from the area at each pixel; a region of ``a`` pixels occurs ``a`` times."""
    values, pixels = area.unique(return_counts=True)
    return values.repeat_interleave((pixels / values).round().long())


def _undefined(scores: Sequence[Tensor]) -> Tensor:
    return torch.tensor(math.nan, dtype=torch.float64, device=scores[0].device)
