"""Counts of positives and negatives at or above each positive, from which all metrics and curves are computed.

The curves need counts only at the scores of positives (anomalous samples or pixels), which are usually few. One sort of
all values, without indices, gives these counts. The values are sorted in chunks whose counts add up, which bounds the
memory and keeps the result exact.
"""

import warnings
from collections.abc import Iterator, Sequence
from numbers import Real
from typing import NamedTuple

import numpy as np
import torch
from skimage.measure import label as label_regions
from torch import Tensor

Maps = Tensor | Sequence[Tensor]

# Values that are sorted at once, 128 MB of float32.
_CHUNK = 2**25


class Ranking(NamedTuple):
    """Counts at or above the score of each of the P positives, in ascending order of these scores.

    Counts are float64, in which they are exact.
    """

    score: Tensor  # (P,) ascending
    true: Tensor  # (P,) positives at or above, including ties and itself
    false: Tensor  # (P,) negatives at or above, including ties
    false_above: Tensor  # (P,) negatives strictly above
    order: Tensor  # (P,) its index among the positives as they were given
    n_negative: int


def rank(scores: Sequence[Tensor], positive: Sequence[Tensor]) -> Ranking | None:
    """Count what lies at or above each positive; None, with a warning, if a class is missing."""
    n = sum(p.numel() for p in positive)
    picked = torch.cat([_float(score[p]) for score, p in zip(scores, positive, strict=True)])
    score, order = picked.sort()
    n_positive = score.numel()
    counts = {"positive (anomalous)": n_positive, "negative (normal)": n - n_positive}
    if missing := [name for name, count in counts.items() if count == 0]:
        what = f"no {' and no '.join(missing)} {'sample' if positive[0].ndim == 1 else 'pixel'} among {n}"
        # Level 3 is the caller of the public function.
        warnings.warn(f"undefined metric, returning NaN: {what}", UserWarning, stacklevel=3)
        return None

    # Counting all values and subtracting the positives is cheaper than selecting the negatives before the sort.
    true, true_above = at_or_above(score, score)
    false, false_above = -true, -true_above
    for everything in _sorted_chunks(scores):
        level, above = at_or_above(everything, score)
        false, false_above = false + level, false_above + above
    return Ranking(score, true.double(), false.double(), false_above.double(), order, n - n_positive)


def at_or_above(everything: Tensor, score: Tensor) -> tuple[Tensor, Tensor]:
    """For each score, the number of sorted values at or above it, and strictly above it."""
    n = len(everything)
    return n - torch.searchsorted(everything, score), n - torch.searchsorted(everything, score, right=True)


def _sorted_chunks(scores: Sequence[Tensor]) -> Iterator[Tensor]:
    """All values in chunks of up to ``_CHUNK``, each sorted on its own, because counts add up over chunks."""
    held: list[Tensor] = []
    for part in (part for score in scores for part in _float(score).flatten().split(_CHUNK)):
        if held and sum(map(len, held)) + len(part) > _CHUNK:
            yield _sort(torch.cat(held))
            held = []
        held.append(part)
    yield _sort(torch.cat(held))


def _sort(values: Tensor) -> Tensor:
    if values.device.type != "cpu":
        return values.sort().values
    values.numpy().sort()  # in place; torch.sort also sorts indices and is ten times slower
    return values


def _float(score: Tensor) -> Tensor:
    # This keeps the order, and NumPy has no bfloat16.
    return score.detach().float() if score.dtype in (torch.float16, torch.bfloat16) else score.detach()


def region_area(positive: Sequence[Tensor]) -> Tensor:
    """The area in pixels of the region around each anomalous pixel, float64, in the order of the pixels."""
    areas = [np.empty(0)]
    for mask in (mask for part in positive for mask in (part if part.ndim == 3 else part[None])):
        if mask.any():
            array = mask.cpu().numpy()
            # With connectivity 2, diagonal neighbours touch.
            region = label_regions(array, connectivity=2)[array]
            areas.append(np.bincount(region)[region].astype(np.float64))
    return torch.from_numpy(np.concatenate(areas)).to(positive[0].device)


def check_limits(fpr_limit: float | Sequence[float]) -> dict[str, float]:
    """The limits by the key of their AUPRO; the first is ``pixel_aupro``, each other one ``pixel_aupro_<limit>``.

    Raises:
        ValueError: There is no limit, one is outside (0, 1], or two agree in six digits.
    """
    limits = list(fpr_limit) if isinstance(fpr_limit, Sequence) else [fpr_limit]
    are_numbers = all(isinstance(limit, Real) and not isinstance(limit, bool) for limit in limits)
    if not limits or not are_numbers or not all(0 < limit <= 1 for limit in limits):
        raise ValueError(f"fpr_limit must be in (0, 1], got {fpr_limit}")
    if len({f"{limit:g}" for limit in limits}) < len(limits):
        raise ValueError(f"fpr_limit: expected limits that differ in six digits, got {fpr_limit}")
    return {f"pixel_aupro_{limit:g}" if i else "pixel_aupro": float(limit) for i, limit in enumerate(limits)}


def check_maps(anomaly_map: Maps, mask: Maps) -> tuple[Sequence[Tensor], list[Tensor]]:
    """Check maps and masks, and return both as sequences; a pair of tensors becomes one block of images."""
    if isinstance(anomaly_map, Tensor) and isinstance(mask, Tensor):
        return [anomaly_map], [check(anomaly_map, mask, ("anomaly_map", "mask"), 3)]
    if not isinstance(anomaly_map, Sequence | Tensor) or not isinstance(mask, Sequence | Tensor):
        kinds = f"{type(anomaly_map).__name__} and {type(mask).__name__}"
        raise ValueError(f"anomaly_map and mask must be tensors or sequences of tensors, got {kinds}")
    if len(anomaly_map) != len(mask):
        raise ValueError(f"expected as many masks as maps, got {len(mask)} and {len(anomaly_map)}")
    if len(mask) == 0:
        raise ValueError("expected at least one map, got none")
    maps = anomaly_map.unbind() if isinstance(anomaly_map, Tensor) else anomaly_map
    names = ((f"anomaly_map[{i}]", f"mask[{i}]") for i in range(len(mask)))
    return maps, [check(m, t, n, 2) for m, t, n in zip(maps, mask, names, strict=True)]


def check(score: Tensor, truth: Tensor, names: tuple[str, str] = ("score", "label"), dimensions: int = 1) -> Tensor:
    """Refuse scores or truth that cannot be ranked; return a boolean tensor of what is anomalous."""
    name, truth_name = names
    for what, value in zip(names, (score, truth), strict=True):
        if not isinstance(value, Tensor):
            raise ValueError(f"{what} must be a torch.Tensor, got {type(value).__name__}")
    if score.ndim != dimensions:
        shape = {1: "(N,)", 2: "(H, W)", 3: "(N, H, W)"}[dimensions]
        raise ValueError(f"{name} must have shape {shape}, got {tuple(score.shape)}")
    if truth.shape != score.shape:
        raise ValueError(f"{truth_name} must have the shape of {name}, {tuple(score.shape)}, got {tuple(truth.shape)}")
    if not score.is_floating_point():
        raise ValueError(f"{name} must be floating point, got {score.dtype}")
    if truth.is_floating_point() or truth.is_complex():
        # An interpolated mask has fractions, all of which would count as anomalous and thicken its regions.
        raise ValueError(f"{truth_name} must be boolean or integer, got {truth.dtype}")
    # The extremes show this in one pass without a temporary, because NaN propagates.
    if score.numel() and not torch.stack(torch.aminmax(score.detach())).isfinite().all():
        bad = ~score.isfinite()
        images = bad.reshape(len(bad), -1).any(dim=1).nonzero().flatten().tolist()
        listed = ", ".join(map(str, images[:5])) + (", ..." if len(images) > 5 else "")
        where = "" if dimensions == 2 else f", at image index {listed}"
        raise ValueError(f"{name} must be finite, got {int(bad.sum())} NaN or infinite values{where}")
    return truth if truth.dtype == torch.bool else truth != 0
