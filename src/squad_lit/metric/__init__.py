"""Exact metrics on raw scores, as functions and as ``torchmetrics`` classes; intervals in :mod:`.bootstrap`."""

from squad_lit.metric.aggregate import ImageMetrics, PixelMetrics
from squad_lit.metric.ranking import (
    aupro,
    auroc,
    average_precision,
    f1_max,
    image_metrics,
    pixel_metrics,
    pixel_metrics_by_size,
)

__all__ = [
    "ImageMetrics",
    "PixelMetrics",
    "aupro",
    "auroc",
    "average_precision",
    "f1_max",
    "image_metrics",
    "pixel_metrics",
    "pixel_metrics_by_size",
]
