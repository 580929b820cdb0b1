"""Precision, recall and F1 of decisions by a threshold that was chosen elsewhere, such as on normal images alone."""

import math
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from squad_lit.metric.ranking import Maps, check, check_maps


def image_decisions(score: Tensor, label: Tensor, threshold: float) -> dict[str, Tensor]:
    """Metrics of the decision that images with a score above a threshold are anomalous.

    Args:
        score: ``(N,)``, floating point, any finite values; higher is more anomalous.
        label: ``(N,)``, boolean or integer; 0 is normal, any other value is anomalous.
        threshold: Scores above it, and not those equal to it, count as anomalous.

    Returns:
        ``image_f1``, ``image_precision``, ``image_recall`` and ``image_false_alarm_rate`` (the share of normal images
        above the threshold), scalars, float64, in [0, 1]. What has nothing to count is NaN, with a ``UserWarning``.

    Raises:
        ValueError: A shape or dtype is wrong, or a score is NaN or infinite.

    Example:
        >>> found = image_decisions(torch.tensor([0.1, 0.6, 0.4, 0.8]), torch.tensor([0, 0, 1, 1]), 0.5)
        >>> {name: round(value.item(), 4) for name, value in found.items()}
        {'image_f1': 0.5, 'image_precision': 0.5, 'image_recall': 0.5, 'image_false_alarm_rate': 0.5}
    """
    return _decisions("image", [score], [check(score, label)], threshold)


def pixel_decisions(anomaly_map: Maps, mask: Maps, threshold: float) -> dict[str, Tensor]:
    """As :func:`image_decisions`, for the pixels of all images as one set.

    Args:
        anomaly_map: ``(N, H, W)``, or a sequence of ``(H, W)`` that may differ in size.
        mask: The same shapes; 0 is normal, any other value is anomalous.
        threshold: Pixels above it count as anomalous.

    Returns:
        ``pixel_f1``, ``pixel_precision``, ``pixel_recall`` and ``pixel_false_alarm_rate``.

    Raises:
        ValueError: A shape or dtype is wrong, or a map value is NaN or infinite.
    """
    return _decisions("pixel", *check_maps(anomaly_map, mask), threshold)


def _decisions(kind: str, scores: Sequence[Tensor], positive: Sequence[Tensor], threshold: float) -> dict[str, Tensor]:
    counts = torch.zeros(4, dtype=torch.float64)
    for score, anomalous in zip(scores, positive, strict=True):
        marked = score > threshold
        both = (marked & anomalous).sum()
        counts += torch.stack([both, marked.sum() - both, anomalous.sum(), (~anomalous).sum()]).cpu()
    hit, false, anomalous, normal = counts
    total = anomalous + false  # 2 TP + FP + FN = TP + FP + P
    shares = {
        "f1": (2 * hit, (hit + total) * (anomalous > 0), f"no anomalous {kind}"),
        "precision": (hit, hit + false, f"no {kind} above the threshold"),
        "recall": (hit, anomalous, f"no anomalous {kind}"),
        "false_alarm_rate": (false, normal, f"no normal {kind}"),
    }
    if reasons := dict.fromkeys(reason for _, of, reason in shares.values() if of == 0):
        warnings.warn(f"undefined metric, returning NaN: {' and '.join(reasons)}", UserWarning, stacklevel=3)
    undefined = torch.tensor(math.nan, dtype=torch.float64)
    return {f"{kind}_{name}": part / of if of > 0 else undefined for name, (part, of, _) in shares.items()}
