"""MVTec LOCO AD: logical and structural anomalies, with one mask per part of an anomaly."""

from pathlib import Path
from typing import ClassVar

from squad_lit.dataset.core import AnomalyDataModule
from squad_lit.dataset.image import list_folders, list_images
from squad_lit.dataset.sample import NORMAL, Sample, check_kinds


class MVTecLOCO(AnomalyDataModule):
    """MVTec LOCO AD: 5 categories; 1,778 training, 305 validation, 575 normal, 561 logical and 432 structural images.

    ``logical_anomalies`` and ``structural_anomalies`` are two kinds of defect, which ``per_defect`` and the report keep
    apart. The mask of an image is the union of the files in a folder of its name. The authors' validation images are
    the hold-out, unless ``limit_train`` is set.

    Reference:
        Bergmann et al., "Beyond Dents and Scratches: Logical Constraints in Unsupervised Anomaly Detection and
        Localization", IJCV 2022.
    """

    name = "mvtec_loco"
    COUNTS: ClassVar = {  # the training images include those of validation
        "breakfast_box": (351 + 62, 102, 83 + 90),
        "juice_bottle": (335 + 54, 94, 142 + 94),
        "pushpins": (372 + 69, 138, 91 + 81),
        "screw_bag": (360 + 60, 122, 137 + 82),
        "splicing_connectors": (360 + 60, 119, 108 + 85),
    }
    CATEGORIES = tuple(COUNTS)
    HELP = """\
Expected: ROOT/<category>/{train,validation}/good/*.png
          ROOT/<category>/test/{good,logical_anomalies,structural_anomalies}/*.png
          ROOT/<category>/ground_truth/{logical_anomalies,structural_anomalies}/<stem>/*.png
Get MVTec LOCO AD from https://www.mvtec.com/company/research/datasets/mvtec-loco and unpack it.
Licence: CC BY-NC-SA 4.0 (not for commercial use)."""

    def is_held_out(self, sample: Sample) -> bool:
        """Whether it lies in the folder ``validation``."""
        return sample.image_path.parts[-3] == "validation"

    def scan(self, category: str) -> tuple[list[Sample], list[Sample]]:
        """The samples of a category, sorted by kind and file name."""
        folder = self.root / category
        normal = [path for split in ("train", "validation") for path in list_images(folder / split / NORMAL)]
        kinds = list_folders(folder / "test")
        check_kinds(kind for kind in kinds if kind.name != NORMAL)
        return [Sample(path, category, NORMAL, 0) for path in normal], [
            Sample(path, category, kind.name, int(kind.name != NORMAL), self._mask_of(folder, kind.name, path))
            for kind in kinds
            for path in list_images(kind)
        ]

    @staticmethod
    def _mask_of(folder: Path, kind: str, image: Path) -> Path | None:
        return None if kind == NORMAL else folder / "ground_truth" / kind / image.stem
