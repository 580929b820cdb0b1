"""The three real categories as one data set, for a joint model."""

from pathlib import Path

from squad_lit.dataset.core import AnomalyDataModule
from squad_lit.dataset.mvtec import scan_mvtec_layout
from squad_lit.dataset.sample import Sample

FOLDERS = {"bottle": "mvtec", "screw": "mvtec", "metal_plate": "mpdd"}


class Three(AnomalyDataModule):
    """bottle and screw of MVTec AD and metal_plate of MPDD, under one root."""

    name = "three"
    CATEGORIES = tuple(FOLDERS)
    HELP = "Expected: ROOT/mvtec and ROOT/mpdd"

    def folder_of(self, category: str) -> Path:
        """The category's folder in its benchmark's."""
        return self.root / FOLDERS[category] / category

    def scan(self, category: str) -> tuple[list[Sample], list[Sample]]:
        """See :func:`scan_mvtec_layout`."""
        return scan_mvtec_layout(self.root / FOLDERS[category], category)
