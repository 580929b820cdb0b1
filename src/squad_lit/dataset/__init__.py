"""Benchmarks: one short file each beside ``core``, which holds what they share."""

from squad_lit.dataset.core import AnomalyDataModule, AnomalyDataset, Sample
from squad_lit.dataset.image import read_image, read_mask, resize, resize_mask

__all__ = ["AnomalyDataModule", "AnomalyDataset", "Sample", "read_image", "read_mask", "resize", "resize_mask"]
