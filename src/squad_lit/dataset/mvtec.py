"""MVTec AD, and its folder layout, which other data sets share."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from squad_lit.dataset.core import AnomalyDataModule
from squad_lit.dataset.image import list_folders, list_images
from squad_lit.dataset.sample import NORMAL, Sample, check_kinds


def scan_mvtec_layout(
    root: Path, category: str, *, normal: Sequence[str] = ("train",), mask: str = "{}_mask.png"
) -> tuple[list[Sample], list[Sample]]:
    """The samples of a category in the layout of MVTec AD.

    Images are ``<category>/train/good/*`` and ``<category>/test/<defect>/*``; masks are
    ``<category>/ground_truth/<defect>/<stem>_mask.png``. The defect ``good`` is normal and has no masks. Files beside
    these folders, such as ``license.txt``, are ignored.

    Args:
        root: Folder of the data set.
        category: The category.
        normal: Folders in the place of ``train``.
        mask: Name of a mask, with the stem of its image in the place of ``{}``.

    Returns:
        Normal training samples and test samples, sorted by defect and file name.

    Raises:
        ValueError: The name of a folder of defects means normal parts, such as ``Good``.
    """
    folder = root / category
    train = [Sample(path, category, NORMAL, 0) for part in normal for path in list_images(folder / part / NORMAL)]
    test = []
    defects = list_folders(folder / "test")
    check_kinds(defect for defect in defects if defect.name != NORMAL)
    for defect in defects:
        for path in list_images(defect):
            if defect.name == NORMAL:
                test.append(Sample(path, category, NORMAL, 0))
                continue
            place = folder / "ground_truth" / defect.name / mask.format(path.stem)
            test.append(Sample(path, category, defect.name, 1, place))
    return train, test


class MVTec(AnomalyDataModule):
    """MVTec AD: 15 categories, 3,629 normal training images, 467 normal and 1,258 anomalous test images.

    Reference:
        Bergmann et al., "The MVTec Anomaly Detection Dataset", IJCV 2021.
    """

    name = "mvtec"
    COUNTS: ClassVar = {
        "bottle": (209, 20, 63),
        "cable": (224, 58, 92),
        "capsule": (219, 23, 109),
        "carpet": (280, 28, 89),
        "grid": (264, 21, 57),
        "hazelnut": (391, 40, 70),
        "leather": (245, 32, 92),
        "metal_nut": (220, 22, 93),
        "pill": (267, 26, 141),
        "screw": (320, 41, 119),
        "tile": (230, 33, 84),
        "toothbrush": (60, 12, 30),
        "transistor": (213, 60, 40),
        "wood": (247, 19, 60),
        "zipper": (240, 32, 119),
    }
    CATEGORIES = tuple(COUNTS)
    HELP = """\
Expected: ROOT/<category>/train/good/*.png
          ROOT/<category>/test/{good,<defect>}/*.png
          ROOT/<category>/ground_truth/<defect>/<stem>_mask.png
Get MVTec AD from https://www.mvtec.com/company/research/datasets/mvtec-ad and unpack it.
Licence: CC BY-NC-SA 4.0 (not for commercial use)."""

    def scan(self, category: str) -> tuple[list[Sample], list[Sample]]:
        """See :func:`scan_mvtec_layout`."""
        return scan_mvtec_layout(self.root, category)
