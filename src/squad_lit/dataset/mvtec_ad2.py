"""MVTec AD 2: the public part of its test images."""

from pathlib import Path
from typing import ClassVar

from squad_lit.dataset.core import AnomalyDataModule
from squad_lit.dataset.image import list_images
from squad_lit.dataset.sample import NORMAL, Sample

PRIVATE = ("test_private", "test_private_mixed")
"""Folders of the test images whose truth only the authors' server knows; see :mod:`squad_lit.submission`."""


class MVTecAD2(AnomalyDataModule):
    """MVTec AD 2: 8 categories; 2,528 training, 302 validation, and 379 normal and 705 anomalous public test images.

    The lighting of a test image is a part of its name, such as ``000_overexposed``. The authors' validation images are
    the hold-out, unless ``limit_train`` is set.

    Reference:
        Heckler-Kram et al., "The MVTec AD 2 Dataset: Advanced Scenarios for Unsupervised Anomaly Detection", 2025.
    """

    name = "mvtec_ad2"
    HELD_OUT = "validation"
    COUNTS: ClassVar = {  # the training images include those of validation
        "can": (412 + 46, 72, 90),
        "fabric": (387 + 43, 66, 90),
        "fruit_jelly": (263 + 37, 20, 60),
        "rice": (313 + 35, 42, 90),
        "sheet_metal": (137 + 19, 24, 90),
        "vial": (291 + 41, 35, 105),
        "wallplugs": (293 + 33, 60, 90),
        "walnuts": (432 + 48, 60, 90),
    }
    CATEGORIES = tuple(COUNTS)
    HELP = """\
Expected: ROOT/<category>/{train,validation}/good/*.png
          ROOT/<category>/test_public/{good,bad}/*.png
          ROOT/<category>/test_public/ground_truth/bad/<stem>_mask.png
Get MVTec AD 2 from https://www.mvtec.com/company/research/datasets/mvtec-ad-2 and unpack it.
Licence: CC BY-NC-SA 4.0 (not for commercial use)."""

    def places(self, category: str) -> list[Path]:
        """The folders without those of the private test images."""
        return [self.root / category / name for name in ("train", "validation", "test_public")]

    def mask_folders(self, category: str) -> list[Path]:
        """The folder of masks, which lies beside the public test images."""
        return [self.root / category / "test_public" / "ground_truth"]

    def scan(self, category: str) -> tuple[list[Sample], list[Sample]]:
        """The samples of a category. The only kind of defect is ``bad``."""
        folder = self.root / category
        normal = [path for split in ("train", "validation") for path in list_images(folder / split / NORMAL)]
        public = folder / "test_public"
        test = [Sample(path, category, NORMAL, 0) for path in list_images(public / NORMAL)]
        masks = public / "ground_truth" / "bad"
        for path in list_images(public / "bad"):
            test.append(Sample(path, category, "bad", 1, masks / f"{path.stem}_mask.png"))
        return [Sample(path, category, NORMAL, 0) for path in normal], test
