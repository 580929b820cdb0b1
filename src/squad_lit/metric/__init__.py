"""Exact metrics and curves on raw scores, as functions and as ``torchmetrics`` classes."""

from squad_lit.metric.aggregate import ImageMetrics, PixelMetrics
from squad_lit.metric.aupimo import aupimo, aupimo_per_image
from squad_lit.metric.curve import image_curves, pixel_curves
from squad_lit.metric.decision import image_decisions, pixel_decisions
from squad_lit.metric.functional import (
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
    "aupimo",
    "aupimo_per_image",
    "aupro",
    "auroc",
    "average_precision",
    "f1_max",
    "image_curves",
    "image_decisions",
    "image_metrics",
    "pixel_curves",
    "pixel_decisions",
    "pixel_metrics",
    "pixel_metrics_by_size",
]
