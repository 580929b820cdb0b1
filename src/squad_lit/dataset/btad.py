"""BTAD: three products, with its own folder names and file extensions."""

from typing import ClassVar

from squad_lit.dataset.core import AnomalyDataModule
from squad_lit.dataset.image import list_images, pair_masks
from squad_lit.dataset.sample import NORMAL, Sample


class BTAD(AnomalyDataModule):
    """BTAD: 3 categories, 1,799 normal training images, 451 normal and 290 anomalous test images.

    The file extension differs between categories and between image and mask, and stems repeat across folders. An image
    in ``test/ko`` therefore takes the mask with the same stem in ``ground_truth/ko``.

    Reference:
        Mishra et al., "VT-ADL: A Vision Transformer Network for Image Anomaly Detection and Localization", ISIE 2021.
    """

    name = "btad"
    COUNTS: ClassVar = {"01": (400, 21, 49), "02": (399, 30, 200), "03": (1000, 400, 41)}
    CATEGORIES = tuple(COUNTS)
    HELP = """\
Expected: ROOT/{01,02,03}/train/ok/*
          ROOT/{01,02,03}/test/{ok,ko}/*
          ROOT/{01,02,03}/ground_truth/ko/*
Get BTAD (BTech_Dataset_transformed) by the link in https://github.com/pankajmishra000/VT-ADL and unpack it.
Licence: CC BY-NC-SA 4.0 (not for commercial use)."""

    def scan(self, category: str) -> tuple[list[Sample], list[Sample]]:
        """The samples of a category. The only kind of defect is ``ko``."""
        folder = self.root / category
        train = [Sample(path, category, NORMAL, 0) for path in list_images(folder / "train" / "ok")]
        test = [Sample(path, category, NORMAL, 0) for path in list_images(folder / "test" / "ok")]
        images, masks = list_images(folder / "test" / "ko"), folder / "ground_truth" / "ko"
        found = pair_masks(images, masks)
        # An image without a mask gets the path where one is expected, so that the error can name it.
        test += [Sample(p, category, "ko", 1, found.get(p, masks / f"{p.stem}.png")) for p in images]
        return train, test
