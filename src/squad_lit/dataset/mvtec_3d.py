"""MVTec 3D-AD: its colour images, without the depth."""

from pathlib import Path
from typing import ClassVar

from squad_lit.dataset.core import AnomalyDataModule
from squad_lit.dataset.image import list_folders, list_images
from squad_lit.dataset.sample import NORMAL, Sample, check_kinds


class MVTec3D(AnomalyDataModule):
    """MVTec 3D-AD, RGB: 10 categories; 2,656 training, 294 validation, and 249 normal and 948 anomalous test images.

    Each folder of a kind of defect has ``rgb``, ``gt`` (black for a normal image) and ``xyz``, which is not read. The
    authors' validation images are the hold-out, unless ``limit_train`` is set.

    Reference:
        Bergmann et al., "The MVTec 3D-AD Dataset for Unsupervised 3D Anomaly Detection and Localization", VISAPP 2022.
    """

    name = "mvtec_3d"
    HELD_OUT = "validation"
    COUNTS: ClassVar = {  # the training images include those of validation
        "bagel": (244 + 22, 22, 88),
        "cable_gland": (223 + 23, 21, 87),
        "carrot": (286 + 29, 27, 132),
        "cookie": (210 + 22, 28, 103),
        "dowel": (288 + 34, 26, 104),
        "foam": (236 + 27, 20, 80),
        "peach": (361 + 42, 26, 106),
        "potato": (300 + 33, 22, 92),
        "rope": (298 + 33, 32, 69),
        "tire": (210 + 29, 25, 87),
    }
    CATEGORIES = tuple(COUNTS)
    HELP = """\
Expected: ROOT/<category>/{train,validation}/good/rgb/*.png
          ROOT/<category>/test/{good,<defect>}/{rgb,gt}/*.png
Get MVTec 3D-AD from https://www.mvtec.com/company/research/datasets/mvtec-3d-ad and unpack it.
Licence: CC BY-NC-SA 4.0 (not for commercial use)."""

    def places(self, category: str) -> list[Path]:
        """The folders of images and masks, without those of the depth."""
        kinds = [kind for split in list_folders(self.root / category) for kind in list_folders(split)]
        return [place for kind in kinds for place in (kind / "rgb", kind / "gt")]

    def mask_folders(self, category: str) -> list[Path]:
        """The folder of masks of each kind of defect."""
        return [kind / "gt" for kind in list_folders(self.root / category / "test")]

    def companions(self, category: str) -> list[Sample]:
        """The normal test and validation images with their masks, which must be black."""
        good = [
            (path, path.parents[1] / "gt" / path.name)
            for split in ("train", "validation", "test")
            for path in list_images(self.root / category / split / NORMAL / "rgb")
        ]
        return [Sample(path, category, NORMAL, 0, mask) for path, mask in good if mask.is_file()]

    def scan(self, category: str) -> tuple[list[Sample], list[Sample]]:
        """The samples of a category, sorted by kind of defect and file name."""
        folder = self.root / category
        normal = [path for split in ("train", "validation") for path in list_images(folder / split / NORMAL / "rgb")]
        test = []
        kinds = list_folders(folder / "test")
        check_kinds(kind for kind in kinds if kind.name != NORMAL)
        for kind in kinds:
            for path in list_images(kind / "rgb"):
                is_normal = kind.name == NORMAL
                mask = None if is_normal else kind / "gt" / path.name
                test.append(Sample(path, category, kind.name, int(not is_normal), mask))
        return [Sample(path, category, NORMAL, 0) for path in normal], test
