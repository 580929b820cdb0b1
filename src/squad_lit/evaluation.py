"""Collects the maps of a test set and turns them into the figures of metrics.json."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from squad_lit import metric

FIGURES = ("image_auroc", "pixel_auroc", "pixel_ap", "pixel_aupro")


class Evaluation:
    """The test images seen so far, and the metrics on them: per category, then averaged.

    Maps stay float32 and masks bool, on the CPU. An image that a distributed sampler repeats counts once (by index).

    Args:
        fpr_limit: Right end of the per-region-overlap curve, in (0, 1].

    Raises:
        ValueError: ``fpr_limit`` out of range.
    """

    def __init__(self, *, fpr_limit: float) -> None:
        if not 0 < fpr_limit <= 1:
            raise ValueError(f"metric.fpr_limit: expected a number in (0, 1], got {fpr_limit}")
        self.fpr_limit = fpr_limit
        self.reset()

    def reset(self) -> None:
        """Forget all images."""
        self._rows: dict[int, dict[str, Any]] = {}

    def update(
        self, batch: Mapping[str, Any], anomaly_map: Tensor, anomaly_score: Tensor, **extra: Sequence[float]
    ) -> None:
        """Add a batch.

        Args:
            batch: Dataset items: ``mask`` (N, 1, H, W), ``label``, ``index``, ``category``, ``defect``, ``image_path``.
            anomaly_map: ``(N, H, W)``.
            anomaly_score: ``(N,)``.
            extra: A number for each image, averaged over the *normal* images of a category.

        Raises:
            ValueError: A map or a score that is not finite; names the image.
        """
        for i, index in enumerate(batch["index"].tolist()):
            path = batch["image_path"][i]
            if not (torch.isfinite(anomaly_map[i]).all() and torch.isfinite(anomaly_score[i])):
                raise ValueError(f"the anomaly map of {path} is not finite; the model has diverged or is not trained")
            self._rows[index] = {
                "map": anomaly_map[i].float().cpu(),
                "mask": batch["mask"][i, 0].bool().cpu(),
                "anomaly_score": float(anomaly_score[i]),
                "label": int(batch["label"][i]),
                "category": batch["category"][i],
                "defect": batch["defect"][i],
                "image_path": path,
                "extra": {name: float(values[i]) for name, values in extra.items()},
            }

    def gather(self) -> None:
        """Bring together what all processes of a distributed test have seen."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            parts: list[dict[int, dict[str, Any]]] = [{} for _ in range(torch.distributed.get_world_size())]
            torch.distributed.all_gather_object(parts, self._rows)
            self._rows = {index: row for part in parts for index, row in part.items()}

    def predictions(self) -> list[dict[str, Any]]:
        """A row for each image, in the order of the data set: path, category, defect, label, score."""
        keys = ("image_path", "category", "defect", "label", "anomaly_score")
        return [{key: row[key] for key in keys} for _, row in sorted(self._rows.items())]

    def compute(self) -> dict[str, Any]:
        """Metrics in [0, 1]; with several categories their means, and ``per_category``.

        Undefined values are NaN, with one warning that names the category and the reason, and means leave them out.
        """
        rows = [row for _, row in sorted(self._rows.items())]
        categories = list(dict.fromkeys(row["category"] for row in rows))
        each = {name: self._category([r for r in rows if r["category"] == name], name) for name in categories}
        if len(each) == 1:
            return each[categories[0]]
        keys = list(dict.fromkeys(key for figures in each.values() for key in figures))
        return {key: _mean([f.get(key, math.nan) for f in each.values()]) for key in keys} | {"per_category": each}

    def _category(self, rows: list[dict[str, Any]], name: str) -> dict[str, float]:
        score = torch.tensor([row["anomaly_score"] for row in rows], dtype=torch.float64)
        label = torch.tensor([row["label"] for row in rows])
        maps, masks = torch.stack([row["map"] for row in rows]), torch.stack([row["mask"] for row in rows])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            figures = {
                "image_auroc": metric.auroc(score, label),
                "image_ap": metric.average_precision(score, label),
                "image_f1_max": metric.f1_max(score, label),
                **metric.pixel_metrics(maps, masks, fpr_limit=self.fpr_limit),
            }
        if caught:
            undefined = [key for key, value in figures.items() if math.isnan(value)]
            warnings.warn(f"category {name}: {', '.join(undefined)} undefined: {caught[0].message}", stacklevel=2)
        out = {key: float(value) for key, value in figures.items()}
        normal = [row["extra"] for row in rows if row["label"] == 0]
        return out | {key: _mean([e[key] for e in normal]) for key in (normal[0] if normal else {})}


def _mean(values: Sequence[float]) -> float:
    """Mean of the defined values; NaN if there is none."""
    defined = [v for v in values if not math.isnan(v)]
    return sum(defined) / len(defined) if defined else math.nan
