"""KSDD2 (KolektorSDD2): one kind of surface, with images and masks side by side in one folder."""

from functools import cached_property
from pathlib import Path
from typing import ClassVar

from squad_lit.dataset.core import AnomalyDataModule
from squad_lit.dataset.image import list_images, read_mask
from squad_lit.dataset.sample import NORMAL, Sample


class KSDD2(AnomalyDataModule):
    """KSDD2: 2,085 normal training images (246 with defects are left out), 894 normal and 110 anomalous test images.

    Every image ``10301.png`` has a mask ``10301_GT.png``, which is black for a normal image. The mask is read at its
    full size to get the label, because the smallest defect has 23 pixels. Files whose stem is not a number are
    ignored, such as ``10301 (copy).png`` in the archive.

    Reference:
        Bozic et al., "Mixed supervision for surface-defect detection: From weakly to fully supervised learning",
        Computers in Industry 2021.
    """

    name = "ksdd2"
    COUNTS: ClassVar = {"ksdd2": (2085, 894, 110)}
    CATEGORIES = tuple(COUNTS)
    HELP = """\
Expected: ROOT/train/NNNNN.png with ROOT/train/NNNNN_GT.png
          ROOT/test/NNNNN.png with ROOT/test/NNNNN_GT.png
Get KolektorSDD2 from https://www.vicos.si/resources/kolektorsdd2 and unpack it.
Licence: CC BY-NC-SA 4.0 (not for commercial use)."""

    def folder_of(self, category: str) -> Path:
        """The root, because there is one category only."""
        return self.root

    def mask_folders(self, category: str) -> list[Path]:
        """None, because masks lie beside the images."""
        return []

    def companions(self, category: str) -> list[Sample]:
        """The black masks of normal images, and the training images with defects."""
        return [
            Sample(sample.image_path, category, sample.defect, sample.label, self._mask_of(sample.image_path))
            for split, samples in self._splits.items()
            for sample in samples
            if sample.label == 0 or split == "train"
        ]

    def scan(self, category: str) -> tuple[list[Sample], list[Sample]]:
        """Normal training samples and test samples. Reading all masks takes a few seconds."""
        return [sample for sample in self._splits["train"] if sample.label == 0], self._splits["test"]

    @cached_property
    def _splits(self) -> dict[str, list[Sample]]:
        """All images with the labels that their masks give; read once."""
        (category,) = self.CATEGORIES
        return {split: self._split_samples(category, self.root / split) for split in ("train", "test")}

    def _split_samples(self, category: str, folder: Path) -> list[Sample]:
        samples = []
        for path in list_images(folder):
            if not path.stem.isdecimal():
                continue
            mask = self._mask_of(path)
            if not mask.is_file():  # the label is unknown; the missing mask is reported like any other
                samples.append(Sample(path, category, NORMAL, 0, mask))
            elif self._has_defect(mask):
                samples.append(Sample(path, category, "defect", 1, mask))
            else:
                samples.append(Sample(path, category, NORMAL, 0))
        return samples

    def _has_defect(self, mask: Path) -> bool:
        try:
            return bool(read_mask(mask).any())
        except (OSError, ValueError):
            return True  # so that the mask is read again, and named, where all files are checked

    @staticmethod
    def _mask_of(path: Path) -> Path:
        return path.with_name(f"{path.stem}_GT.png")
