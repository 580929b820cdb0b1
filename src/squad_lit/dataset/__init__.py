"""Data sets. Each benchmark has one short file; ``core`` holds what they share."""

from squad_lit.dataset.core import AnomalyDataModule
from squad_lit.dataset.image import read_image, read_mask, resize, resize_mask
from squad_lit.dataset.sample import AnomalyDataset, Sample

__all__ = ["AnomalyDataModule", "AnomalyDataset", "Sample", "read_image", "read_mask", "resize", "resize_mask"]
