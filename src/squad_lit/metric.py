"""Ranking metrics of anomaly detection, exact on raw scores: AUROC, average precision, best F1 and AUPRO.

Only the order of the scores matters: nothing is squashed, binned or normalised. Every distinct score is a threshold
("anomalous" means *score >= threshold*) and equal scores share one. All curves move only at the score of a positive
(an anomalous sample or pixel), so each metric is a sum or maximum over the positives, usually few, of two counts:
positives and negatives at or above. One sort of the values, without their indices, answers all the counts.
"""

import math
import warnings
from typing import NamedTuple

import numpy as np
import torch
from skimage.measure import label as label_regions
from torch import Tensor


def auroc(score: Tensor, label: Tensor) -> Tensor:
    """Area under the ROC curve: the chance that an anomalous sample scores above a normal one, a tie counting half.

    Args:
        score: ``(N,)``, floating point, any finite values; higher is more anomalous. Only the order matters.
        label: ``(N,)``, boolean or integer; 0 is normal, any other value anomalous.

    Returns:
        Scalar, float64, in [0, 1]. NaN, with a ``UserWarning``, unless both classes are present.

    Raises:
        ValueError: Wrong shape or dtype; a score that is NaN or infinite.

    Example:
        >>> auroc(torch.tensor([0.1, 0.4, 0.35, 0.8]), torch.tensor([0, 0, 1, 1]))
        tensor(0.7500, dtype=torch.float64)
    """
    ranking = _rank(score, _check(score, label))
    return _undefined(score) if ranking is None else _area(ranking)


def average_precision(score: Tensor, label: Tensor) -> Tensor:
    """Average precision: precision at each threshold, weighted by the recall gained there.

    The step-wise sum of scikit-learn, without interpolation between the points of the precision-recall curve.

    Args:
        score: ``(N,)``, floating point, any finite values; higher is more anomalous. Only the order matters.
        label: ``(N,)``, boolean or integer; 0 is normal, any other value anomalous.

    Returns:
        Scalar, float64, in (0, 1]. NaN, with a ``UserWarning``, unless both classes are present.

    Raises:
        ValueError: Wrong shape or dtype; a score that is NaN or infinite.

    Example:
        >>> average_precision(torch.tensor([0.1, 0.4, 0.35, 0.8]), torch.tensor([0, 0, 1, 1]))
        tensor(0.8333, dtype=torch.float64)
    """
    ranking = _rank(score, _check(score, label))
    return _undefined(score) if ranking is None else _mean_precision(ranking)


def f1_max(score: Tensor, label: Tensor) -> Tensor:
    """Highest F1 score of the anomalous class over all thresholds.

    The threshold is chosen on the very labels it is judged by: an upper bound, not the F1 of a deployed detector.

    Args:
        score: ``(N,)``, floating point, any finite values; higher is more anomalous. Only the order matters.
        label: ``(N,)``, boolean or integer; 0 is normal, any other value anomalous.

    Returns:
        Scalar, float64, in (0, 1]. NaN, with a ``UserWarning``, unless both classes are present.

    Raises:
        ValueError: Wrong shape or dtype; a score that is NaN or infinite.

    Example:
        >>> f1_max(torch.tensor([0.1, 0.4, 0.35, 0.8]), torch.tensor([0, 0, 1, 1]))
        tensor(0.8000, dtype=torch.float64)
    """
    ranking = _rank(score, _check(score, label))
    return _undefined(score) if ranking is None else _best_f1(ranking)


def aupro(anomaly_map: Tensor, mask: Tensor, *, fpr_limit: float = 0.3) -> Tensor:
    """Area under the per-region-overlap curve, up to a false-positive rate, scaled to [0, 1].

    At each threshold, overlap is averaged over the connected regions (8-neighbourhood) of all masks, so a small
    defect weighs as much as a large one; the false-positive rate is over the normal pixels of all images. The curve
    (trapezoids between thresholds) is cut at ``fpr_limit`` by linear interpolation and its area is divided by
    ``fpr_limit``. Ties in score are one threshold.

    Args:
        anomaly_map: ``(N, H, W)``, floating point, any finite values; higher is more anomalous. Only the order matters.
        mask: ``(N, H, W)``, boolean or integer; 0 is normal, any other value anomalous (255 and class indices alike).
            All-zero masks are allowed and count as background.
        fpr_limit: Right end of the curve, in (0, 1].

    Returns:
        Scalar, float64, in [0, 1]. NaN, with a ``UserWarning``, unless both classes of pixels are present.

    Raises:
        ValueError: Wrong shape or dtype; a map value that is NaN or infinite; ``fpr_limit`` out of range.

    Example:
        Of two regions, the one of three pixels is found and the one of a single pixel is missed.

        >>> mask = torch.tensor([[[1, 0, 0, 1, 1, 1]]])
        >>> aupro(torch.tensor([[[0.0, 0.1, 0.2, 0.8, 0.9, 0.7]]]), mask)
        tensor(0.5000, dtype=torch.float64)

    Reference:
        Bergmann et al., "Uninformed Students", CVPR 2020, section 4.
    """
    positive = _check_maps(anomaly_map, mask, fpr_limit)
    ranking = _rank(anomaly_map, positive)
    return _undefined(anomaly_map) if ranking is None else _area(ranking, fpr_limit, _region_weight(positive))


def pixel_metrics(anomaly_map: Tensor, mask: Tensor, *, fpr_limit: float = 0.3) -> dict[str, Tensor]:
    """All pixel metrics from one sort: AUROC, average precision, best F1 and AUPRO.

    The first three take the pixels of all images as one set of samples; the last is ``aupro``. Besides one sorted
    copy of the maps in their own dtype, memory grows with the anomalous pixels only.

    Args:
        anomaly_map: ``(N, H, W)``, floating point, any finite values; higher is more anomalous. Only the order matters.
        mask: ``(N, H, W)``, boolean or integer; 0 is normal, any other value anomalous (255 and class indices alike).
            All-zero masks are allowed and count as background.
        fpr_limit: Right end of the per-region-overlap curve, in (0, 1].

    Returns:
        ``pixel_auroc``, ``pixel_ap``, ``pixel_f1_max`` and ``pixel_aupro``: scalars, float64, in [0, 1]. All are NaN,
        with one ``UserWarning``, unless both classes of pixels are present.

    Raises:
        ValueError: Wrong shape or dtype; a map value that is NaN or infinite; ``fpr_limit`` out of range.

    Example:
        >>> mask = torch.tensor([[[1, 0, 0, 1, 1, 1]]])
        >>> metrics = pixel_metrics(torch.tensor([[[0.0, 0.1, 0.2, 0.8, 0.9, 0.7]]]), mask)
        >>> {name: round(value.item(), 4) for name, value in metrics.items()}
        {'pixel_auroc': 0.75, 'pixel_ap': 0.9167, 'pixel_f1_max': 0.8571, 'pixel_aupro': 0.5}
    """
    positive = _check_maps(anomaly_map, mask, fpr_limit)
    ranking = _rank(anomaly_map, positive)
    if ranking is None:
        return {f"pixel_{name}": _undefined(anomaly_map) for name in ("auroc", "ap", "f1_max", "aupro")}
    return {
        "pixel_auroc": _area(ranking),
        "pixel_ap": _mean_precision(ranking),
        "pixel_f1_max": _best_f1(ranking),
        "pixel_aupro": _area(ranking, fpr_limit, _region_weight(positive)),
    }


class _Ranking(NamedTuple):
    """What each of the P positives sees at or above its own score; counts in float64, where they are exact."""

    true: Tensor  # (P,) positives at or above, ties and itself included
    false: Tensor  # (P,) negatives at or above, ties included
    false_above: Tensor  # (P,) negatives strictly above
    order: Tensor  # (P,) index of this positive in score[positive]
    n_negative: int


def _rank(score: Tensor, positive: Tensor) -> _Ranking | None:
    """Count for each positive what lies above it; None, with a warning, if a class is missing."""
    score = score.detach()
    if score.dtype in (torch.float16, torch.bfloat16):
        score = score.float()  # keeps the order; NumPy has no bfloat16
    positives, order = score[positive].sort()
    n, n_positive = score.numel(), positives.numel()
    counts = {"positive (anomalous)": n_positive, "negative (normal)": n - n_positive}
    if missing := [name for name, count in counts.items() if count == 0]:
        what = f"no {' and no '.join(missing)} {'sample' if score.ndim == 1 else 'pixel'} among {n}"
        # Level 3 is the caller of the public function.
        warnings.warn(f"undefined metric, returning NaN: {what}", UserWarning, stacklevel=3)
        return None

    if score.device.type == "cpu":
        everything = torch.from_numpy(np.sort(score.numpy(), axis=None))  # torch.sort carries indices: ten times slower
    else:
        everything = score.flatten().sort().values

    # Negatives are all minus positives: cheaper than picking them out before the sort. Searching from the left gives
    # the number below, from the right the number below or tied.
    true = n_positive - torch.searchsorted(positives, positives)
    true_above = n_positive - torch.searchsorted(positives, positives, right=True)
    false = n - torch.searchsorted(everything, positives) - true
    false_above = n - torch.searchsorted(everything, positives, right=True) - true_above
    return _Ranking(true.double(), false.double(), false_above.double(), order, n - n_positive)


def _area(ranking: _Ranking, fpr_limit: float = 1.0, weight: Tensor | None = None) -> Tensor:
    """Area under the curve of the weighted share of positives found, for false-positive rates up to the limit.

    One positive alone is found along a ramp, from ``false_above`` to ``false`` negatives (a step if none is tied), and
    the curve is the weighted mean of these ramps: their areas are exact, and so is the cut. Equal weights give the ROC
    curve; one over the area of the region (in the order of ``score[positive]``) gives the per-region overlap.
    """
    limit = fpr_limit * ranking.n_negative
    ramp = ranking.false - ranking.false_above
    covered = (limit - ranking.false_above).clamp(min=0)  # width from the foot of the ramp to the limit
    area = torch.where(covered >= ramp, covered - ramp / 2, covered**2 / (2 * ramp)) / limit
    if weight is None:
        return area.mean()
    weight = weight[ranking.order]
    return (weight * area).sum() / weight.sum()  # the weights sum to the number of regions


def _mean_precision(ranking: _Ranking) -> Tensor:
    """Mean over positives of the precision at their score: each brings 1/P of recall."""
    return (ranking.true / (ranking.true + ranking.false)).mean()


def _best_f1(ranking: _Ranking) -> Tensor:
    """Maximum of 2 TP / (2 TP + FP + FN), where TP + FN = P."""
    return (2 * ranking.true / (ranking.true + ranking.false + ranking.true.numel())).max()


def _region_weight(positive: Tensor) -> Tensor:
    """One over the area of the region around each anomalous pixel, in the order of ``score[positive]``."""
    weights = []
    for mask in positive[positive.flatten(1).any(dim=1)].cpu().numpy():
        # Connectivity 2: diagonal neighbours touch.
        region = label_regions(mask, connectivity=2)[mask]
        weights.append(1.0 / np.bincount(region)[region])
    return torch.from_numpy(np.concatenate(weights)).to(positive.device)


def _undefined(score: Tensor) -> Tensor:
    return torch.tensor(math.nan, dtype=torch.float64, device=score.device)


def _check_maps(anomaly_map: Tensor, mask: Tensor, fpr_limit: float) -> Tensor:
    if not 0 < fpr_limit <= 1:
        raise ValueError(f"fpr_limit must be in (0, 1], got {fpr_limit}")
    return _check(anomaly_map, mask, ("anomaly_map", "mask"), "(N, H, W)")


def _check(score: Tensor, truth: Tensor, names: tuple[str, str] = ("score", "label"), shape: str = "(N,)") -> Tensor:
    """Refuse what has no ranking, in words; return what is anomalous as a boolean tensor."""
    name, truth_name = names
    if score.ndim != (1 if shape == "(N,)" else 3):
        raise ValueError(f"{name} must have shape {shape}, got {tuple(score.shape)}")
    if truth.shape != score.shape:
        raise ValueError(f"{truth_name} must have the shape of {name}, {tuple(score.shape)}, got {tuple(truth.shape)}")
    if not score.is_floating_point():
        raise ValueError(f"{name} must be floating point, got {score.dtype}")
    if truth.is_floating_point() or truth.is_complex():
        # A mask resized with interpolation has fractions, and any non-zero value would thicken its regions.
        raise ValueError(f"{truth_name} must be boolean or integer, got {truth.dtype}")
    # The extremes tell in one pass without a temporary (NaN propagates); isfinite on all is for the message only.
    if score.numel() and not torch.stack(torch.aminmax(score.detach())).isfinite().all():
        bad = ~score.isfinite()
        images = bad.reshape(len(bad), -1).any(dim=1).nonzero().flatten().tolist()
        listed = ", ".join(map(str, images[:5])) + (", ..." if len(images) > 5 else "")
        raise ValueError(f"{name} must be finite, got {int(bad.sum())} NaN or infinite values, at image index {listed}")
    return truth != 0
