"""MVTec LOCO AD: logical and structural anomalies, with one mask per part of an anomaly."""

from typing import ClassVar

from squad_lit.dataset.core import AnomalyDataModule
from squad_lit.dataset.mvtec import scan_mvtec_layout
from squad_lit.dataset.sample import Sample


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
    HELD_OUT = "validation"
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

    def scan(self, category: str) -> tuple[list[Sample], list[Sample]]:
        """The samples of a category, sorted by kind and file name."""
        return scan_mvtec_layout(self.root, category, normal=("train", "validation"), mask="{}")
