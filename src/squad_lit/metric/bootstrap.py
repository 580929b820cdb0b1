"""Bootstrap of the metrics, which shows how much they would vary with another draw of the test images.

Normal and anomalous images are resampled separately, with replacement, so that every resample has as many of each as
the test set. A resample is a vector of how often it contains each image. All resamples are measured in one pass, as the
product of these vectors and the counts above each positive per image. The metrics of each resample are exact.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from squad_lit.metric.functional import area_under_ramp
from squad_lit.metric.ranking import Maps, at_or_above, check_limits, region_area

# Elements (resamples times positives) that are processed at once, 32 MB in float64.
_BLOCK = 2**22


def resample(label: Tensor, count: int, *, seed: int) -> Tensor:
    """Draw how often each resample contains each image.

    Args:
        label: ``(N,)``; 0 is normal, any other value is anomalous.
        count: Number of resamples, at least 1.
        seed: Seed of the draws.

    Returns:
        ``(count, N)``, float64, whole numbers. Per row, the normal images sum to their number, and so do the anomalous.

    Raises:
        ValueError: ``count`` is below 1.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    rng = np.random.default_rng(seed)
    times = np.zeros((count, len(label)))
    for kind in (False, True):
        images = np.flatnonzero((label != 0).numpy() == kind)
        if len(images):
            times[:, images] = rng.multinomial(len(images), np.full(len(images), 1 / len(images)), size=count)
    return torch.from_numpy(times)


def image_bootstrap(score: Tensor, label: Tensor, times: Tensor) -> dict[str, Tensor]:
    """The image metrics of each resample.

    Args:
        score: ``(N,)``, floating point, finite; higher is more anomalous.
        label: ``(N,)``; 0 is normal, any other value is anomalous.
        times: ``(B, N)``, see :func:`resample`.

    Returns:
        ``image_auroc``, ``image_ap`` and ``image_f1_max``, each ``(B,)`` float64; NaN where a class is missing.
    """
    maps = [s.reshape(1, 1) for s in score]
    found = pixel_bootstrap(maps, [t.reshape(1, 1) for t in label], times)
    return {name: found[name.replace("image", "pixel")] for name in ("image_auroc", "image_ap", "image_f1_max")}


def pixel_bootstrap(
    anomaly_map: Maps, mask: Maps, times: Tensor, *, fpr_limit: float | Sequence[float] = 0.3
) -> dict[str, Tensor]:
    """The pixel metrics of each resample. The time grows with resamples x anomalous pixels x images.

    Args:
        anomaly_map: N maps ``(H, W)``, floating point, finite; higher is more anomalous.
        mask: N masks ``(H, W)``; 0 is normal, any other value is anomalous.
        times: ``(B, N)``, see :func:`resample`.
        fpr_limit: See :func:`squad_lit.metric.pixel_metrics`.

    Returns:
        The keys of :func:`squad_lit.metric.pixel_metrics`, each ``(B,)`` float64; NaN where a class is missing.
    """
    limits = check_limits(fpr_limit)
    positive = [m != 0 for m in mask]
    high = [a[p].sort() for a, p in zip(anomaly_map, positive, strict=True)]
    low = [a[~p].sort().values for a, p in zip(anomaly_map, positive, strict=True)]
    image = torch.cat([torch.full_like(h.indices, i) for i, h in enumerate(high)])
    weight = torch.cat([1 / region_area([p])[h.indices] for p, h in zip(positive, high, strict=True)])
    score, order = torch.cat([h.values for h in high]).sort()
    image, weight = image[order], weight[order]

    # (B, 1), the totals of each resample.
    n_positive = times @ torch.tensor([[float(len(h.values))] for h in high], dtype=torch.float64)
    n_negative = times @ torch.tensor([[float(len(v))] for v in low], dtype=torch.float64)
    n_region = times @ torch.bincount(image, weight, minlength=len(high)).double()[:, None]
    sums = {key: torch.zeros(len(times), dtype=torch.float64) for key in ("pixel_auroc", "pixel_ap", *limits)}
    best = torch.zeros(len(times), dtype=torch.float64)
    step = max(1, _BLOCK // len(times))
    for part in (slice(start, start + step) for start in range(0, len(score), step)):
        true, _ = _counts([h.values for h in high], score[part], times)
        false, false_above = _counts(low, score[part], times)
        own = times[:, image[part]]
        sums["pixel_auroc"] += (own * area_under_ramp(false, false_above, n_negative)).sum(1)
        sums["pixel_ap"] += (own * true / (true + false).clamp(min=1)).sum(1)
        for key, limit in limits.items():
            sums[key] += (own * weight[part] * area_under_ramp(false, false_above, limit * n_negative)).sum(1)
        best = torch.maximum(best, (2 * true / (true + false + n_positive)).amax(1))
    total = {"pixel_auroc": n_positive * n_negative, "pixel_ap": n_positive}
    total |= {key: n_region * limit * n_negative for key, limit in limits.items()}
    undefined = ((n_positive == 0) | (n_negative == 0))[:, 0]
    found = {key: value / total[key][:, 0] for key, value in sums.items()} | {"pixel_f1_max": best}
    return {key: value.masked_fill(undefined, math.nan) for key, value in found.items()}


def interval(metrics: Mapping[str, Tensor], level: float = 0.95) -> dict[str, list[float]]:
    """The percentile interval of each metric over its defined resamples; NaN if none is defined."""
    ends = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    return {key: value.nanquantile(ends).tolist() for key, value in metrics.items()}


def _counts(values: Sequence[Tensor], score: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
    """Counts ``(B, P)`` of values at or above, and strictly above, each score. The values of each image ascend."""
    shape = len(values), len(score)
    level, above = torch.empty(shape, dtype=torch.float64), torch.empty(shape, dtype=torch.float64)
    for i, v in enumerate(values):
        level[i], above[i] = at_or_above(v, score)
    return times @ level, times @ above
